//! Addresses that this build can send requests to.

use super::trust::server_name;
use std::fmt;

/// Whom connections are made to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub is_https: bool,
    /// As it stands in the URL, an IPv6 address in brackets.
    pub host: String,
    pub port: u16,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    pub origin: Origin,
    /// Begins with a slash.
    pub path_and_query: String,
}

/// Why an address is none that requests can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadUrl {
    Malformed,
    NotHttp,
    NoHost,
    Port,
    /// A host that no certificate can be for.
    Unnamed,
    Credentials,
    Fragment,
}

impl HttpUrl {
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let uri: hyper::Uri = url.parse().map_err(|_| BadUrl::Malformed)?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadUrl::NotHttp),
        };
        let authority = uri.authority().ok_or(BadUrl::NoHost)?;
        if authority.as_str().contains('@') {
            return Err(BadUrl::Credentials);
        }
        if authority.host().is_empty() {
            return Err(BadUrl::NoHost);
        }
        // `Uri` drops it without a word.
        if url.contains('#') {
            return Err(BadUrl::Fragment);
        }
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let origin = Origin::of(is_https, authority).filter(|origin| origin.port != 0).ok_or(BadUrl::Port)?;
        if is_https && server_name(&origin.host).is_none() {
            return Err(BadUrl::Unnamed);
        }
        Ok(Self { origin, path_and_query })
    }
}

impl Origin {
    /// Of what stands between scheme and path, without credentials; the standard port if it names none.
    /// `None` if it names one that is none.
    pub fn of(is_https: bool, authority: &hyper::http::uri::Authority) -> Option<Self> {
        let host = authority.host();
        // What is no port is not seen as one, and the standard one would be taken.
        let port = match (authority.port_u16(), &authority.as_str()[host.len()..]) {
            (Some(port), _) => port,
            (None, "") => standard_port(is_https),
            _ => return None,
        };
        Some(Self { is_https, host: host.to_owned(), port })
    }

    /// `host:port`, to connect to.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What the header `Host` says: a port that goes without saying is left out (RFC 9110, 7.2).
    pub fn host_header(&self) -> String {
        match self.port == standard_port(self.is_https) {
            true => self.host.clone(),
            false => self.address(),
        }
    }
}

fn standard_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a URL",
            Self::NotHttp => "neither an https:// nor an http:// URL",
            Self::NoHost => "names no host",
            Self::Port => "has a port that is none",
            Self::Unnamed => "names a host that no certificate can be for",
            Self::Credentials => "must not carry credentials",
            Self::Fragment => "must not have a fragment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_path_a_query_and_no_port() {
        for (url, address, host, path) in [
            ("http://pay.example", "pay.example:80", "pay.example", "/"),
            ("https://pay.example", "pay.example:443", "pay.example", "/"),
            ("https://pay.example:80/", "pay.example:80", "pay.example:80", "/"),
            ("http://127.0.0.1:8443/in?a=1&b", "127.0.0.1:8443", "127.0.0.1:8443", "/in?a=1&b"),
            ("HTTPS://[::1]:9", "[::1]:9", "[::1]:9", "/"),
        ] {
            let parsed = HttpUrl::parse(url).expect("a URL");
            let of = &parsed.origin;
            assert_eq!((&*of.address(), &*of.host_header(), &*parsed.path_and_query), (address, host, path), "{url}");
            assert_eq!(of.is_https, url.to_lowercase().starts_with("https"), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_the_reason() {
        for (url, why) in [
            ("ftp://x", BadUrl::NotHttp),
            ("/path", BadUrl::NotHttp),
            ("http://", BadUrl::Malformed),
            ("http://:80/", BadUrl::NoHost),
            ("http://u:p@x/", BadUrl::Credentials),
            ("https://x:99999/", BadUrl::Port),
            ("https://x:8o/", BadUrl::Port),
            ("http://x:0/", BadUrl::Port),
            ("https://1.2.3/", BadUrl::Unnamed),
            ("http://x/#a", BadUrl::Fragment),
            ("http://x y", BadUrl::Malformed),
            ("", BadUrl::Malformed),
        ] {
            assert_eq!(HttpUrl::parse(url), Err(why), "{url}");
        }
    }
}
