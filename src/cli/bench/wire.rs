//! HTTP/1.1 with next to no work: requests are bytes made beforehand, of an answer only the
//! status, the body's length and the body are looked at.
//!
//! The client shares its cores with the cluster it measures: what it burns is missing there.

use std::io;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 16 * 1024;

/// One kept-alive connection, one request at a time.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    read: Vec<u8>,
}

pub(super) struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
    /// The server closes the connection after this answer.
    pub last: bool,
    /// Of an acknowledged write.
    pub receipt: Option<String>,
}

impl Connection {
    pub async fn open(authority: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(READ_BYTES), read: vec![0; READ_BYTES] })
    }

    /// Sends a whole request and reads the whole answer. After an error the connection is of no
    /// further use, and the request may have been carried out.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            match Head::parse(&self.buffer)? {
                Some(head) => break head,
                None if self.buffer.len() > HEAD_BYTES_MAX => return Err(malformed("its head is too long")),
                None => self.more().await?,
            }
        };
        let end = head.len + head.content_length;
        while self.buffer.len() < end {
            self.more().await?;
        }
        if self.buffer.len() > end {
            return Err(malformed("there is more of it than its content-length says"));
        }
        Ok(Answer { status: head.status, body: &self.buffer[head.len..], last: head.close, receipt: head.receipt })
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.buffer.extend_from_slice(&self.read[..n]);
                Ok(())
            }
        }
    }
}

struct Head {
    status: u16,
    content_length: usize,
    close: bool,
    receipt: Option<String>,
    /// Bytes up to the body.
    len: usize,
}

impl Head {
    /// `None` as long as the head is not complete.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(len) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else { return Ok(None) };
        let mut lines = bytes[..len].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        let status = lines.next().and_then(status_of).ok_or_else(|| malformed("no HTTP/1.1 status line"))?;
        let mut head = Self { status, content_length: 0, close: false, receipt: None, len };
        for line in lines {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                head.content_length =
                    length.filter(|n| *n <= BODY_BYTES_MAX).ok_or_else(|| malformed("an unusable content-length"))?;
            } else if name.eq_ignore_ascii_case(b"connection") {
                head.close = value.eq_ignore_ascii_case(b"close");
            } else if name.eq_ignore_ascii_case(b"x-receipt") {
                head.receipt = std::str::from_utf8(value).ok().map(str::to_owned);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Err(malformed("a transfer-encoding, which this client does not read"));
            }
        }
        Ok(Some(head))
    }
}

fn status_of(line: &[u8]) -> Option<u16> {
    let code = line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}

/// Where `needle` starts.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The text between the quotes after `"name":`, in JSON without blanks or with one.
pub(super) fn string_field<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let label = format!("\"{name}\":");
    let rest = json[find(json, label.as_bytes())? + label.len()..].trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Answers each connection with `parts`, one after another, whatever it is asked.
    async fn answering(parts: &'static [&'static [u8]]) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            assert!(stream.read(&mut [0; 1024]).await.expect("a request") > 0);
            for part in parts {
                stream.write_all(part).await.expect("writing");
                tokio::task::yield_now().await;
            }
        });
        Connection::open(&address).await.expect("connected")
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_put_together() {
        let parts: &[&[u8]] =
            &[b"HTTP/1.1 201 Cre", b"ated\r\nContent-Length: 5\r", b"\nX-Receipt: 1-2-3-4\r\n\r\nhe", b"llo"];
        let mut connection = answering(parts).await;
        let answer = connection.exchange(b"x").await.expect("an answer");
        assert_eq!((answer.status, answer.body, answer.last), (201, &b"hello"[..], false));
        assert_eq!(answer.receipt.as_deref(), Some("1-2-3-4"));
    }

    #[tokio::test]
    async fn an_answer_cut_off_is_an_error() {
        let mut connection = answering(&[b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe"]).await;
        assert!(connection.exchange(b"x").await.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test]
    async fn answers_that_cannot_be_measured_are_errors() {
        let bad: [&'static [&'static [u8]]; 3] = [
            &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
            &[b"SSH-2.0-OpenSSH\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"],
        ];
        for parts in bad {
            assert!(answering(parts).await.exchange(b"x").await.is_err());
        }
    }

    #[test]
    fn fields_are_found() {
        let json = br#"{"id":"ord_1","nested":{"code": "no-quorum"},"n":3}"#;
        assert_eq!(string_field(json, "id"), Some("ord_1"));
        assert_eq!(string_field(json, "code"), Some("no-quorum"));
        assert_eq!(string_field(json, "n"), None);
        assert_eq!(string_field(json, "absent"), None);
        assert_eq!(find(b"aab", b"ab"), Some(1));
    }
}
