//! Addresses that this build can send requests to.

use std::fmt;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// `host:port`
    pub authority: String,
    /// Begins with a slash.
    pub path_and_query: String,
}

/// Why an address is none that requests can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadUrl {
    Malformed,
    Https,
    NotHttp,
    NoHost,
    Credentials,
    Fragment,
}

impl HttpUrl {
    pub fn parse(url: &str) -> Result<Self, BadUrl> {
        let uri: hyper::Uri = url.parse().map_err(|_| BadUrl::Malformed)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(BadUrl::Https),
            _ => return Err(BadUrl::NotHttp),
        }
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
        let authority = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        Ok(Self { authority, path_and_query })
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a URL",
            Self::Https => "this build has no TLS client",
            Self::NotHttp => "not an http:// URL",
            Self::NoHost => "names no host",
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
        let parsed = |url: &str| HttpUrl::parse(url).map(|url| (url.authority, url.path_and_query)).expect("a URL");
        assert_eq!(parsed("http://pay.example"), ("pay.example:80".into(), "/".into()));
        assert_eq!(parsed("http://127.0.0.1:8443/in?a=1&b"), ("127.0.0.1:8443".into(), "/in?a=1&b".into()));
        assert_eq!(parsed("http://[::1]:9"), ("[::1]:9".into(), "/".into()));
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_the_reason() {
        for (url, why) in [
            ("https://x/y", BadUrl::Https),
            ("ftp://x", BadUrl::NotHttp),
            ("/path", BadUrl::NotHttp),
            ("http://", BadUrl::Malformed),
            ("http://:80/", BadUrl::NoHost),
            ("http://u:p@x/", BadUrl::Credentials),
            ("http://x/#a", BadUrl::Fragment),
            ("http://x y", BadUrl::Malformed),
            ("", BadUrl::Malformed),
        ] {
            assert_eq!(HttpUrl::parse(url), Err(why), "{url}");
        }
    }
}
