//! What is read from files, and what is said of those that cannot be used.

use super::*;
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority and the files of its nodes.
pub(in crate::transport) struct Certificates {
    dir: TempDir,
    authority: Authority,
}

impl Certificates {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (authority, issued) = Authority::create(DAY).expect("an authority");
        fs::write(dir.path().join("ca.crt"), &issued.certificate).expect("written");
        fs::write(dir.path().join("ca.key"), &issued.key).expect("written");
        Self { dir, authority }
    }

    /// A certificate for a node: another one each time, in the same files.
    pub fn issue(&self, name: &str) -> Options {
        self.issue_as(name, name, SystemTime::now() + DAY)
    }

    /// In the files of the node `name`, one for `within`.
    pub fn issue_as(&self, name: &str, within: &str, until: SystemTime) -> Options {
        let issued = self.authority.issue_until(within, until).expect("a certificate");
        let options = self.files(name);
        overwrite(&options.certificate_file, &issued.certificate);
        overwrite(&options.key_file, &issued.key);
        options
    }

    /// Where the files of a node are.
    pub fn files(&self, name: &str) -> Options {
        let file = |name: &str| Some(self.dir.path().join(name));
        Options {
            ca_file: file("ca.crt"),
            certificate_file: file(&format!("{name}.crt")),
            key_file: file(&format!("{name}.key")),
        }
    }

    /// Has nodes trust another authority, too.
    pub fn trust(&self, other: &Self) {
        let both = [self, other].map(|one| fs::read_to_string(one.dir.path().join("ca.crt")).expect("read"));
        overwrite(&self.files("").ca_file, &both.concat());
    }
}

/// Why `name` cannot start with these files.
fn refusal(options: &Options, name: &str) -> String {
    Tls::open(options, name).map(drop).expect_err("it cannot be used")
}

/// Writes, and puts the file's time on by so much that every clock of a file system shows it.
pub(in crate::transport) fn overwrite(file: &Option<PathBuf>, text: &str) {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let file = file.as_ref().expect("a file");
    fs::write(file, text).expect("written");
    let later = Duration::from_secs(WRITTEN.fetch_add(1, Ordering::Relaxed));
    fs::File::options()
        .write(true)
        .open(file)
        .and_then(|file| file.set_modified(SystemTime::now() + later))
        .expect("a time");
}

fn text(file: &Option<PathBuf>) -> String {
    fs::read_to_string(file.as_ref().unwrap()).expect("read")
}

#[test]
fn without_files_there_is_no_tls_and_with_some_of_them_there_is_a_mistake() {
    assert!(Tls::open(&Options::default(), "n1").unwrap().is_none());
    let some = Options { ca_file: Some("ca.crt".into()), ..Options::default() };
    assert_eq!(some.validate(), Err("ca_file is set and certificate_file is not: all three, or none".into()));
    assert_eq!(refusal(&some, "n1"), format!("transport.tls: {}", some.validate().unwrap_err()));
}

#[test]
fn what_cannot_be_used_is_named_with_its_key_and_file() {
    let all = Certificates::new();
    let good = all.issue("n1");
    assert!(Tls::open(&good, "n1").unwrap().is_some());

    let missing = Options { key_file: Some(Path::new("/nowhere/n1.key").into()), ..good.clone() };
    let error = refusal(&missing, "n1");
    assert!(error.starts_with("`transport.tls.key_file` = /nowhere/n1.key: No such file"), "{error}");

    let other = refusal(&good, "n2");
    assert!(other.contains("is for \"n1\", and this node is \"n2\"; make one with `quorate certs node n2`"), "{other}");

    let mixed = Options { key_file: all.issue("n2").key_file, ..good.clone() };
    let error = refusal(&mixed, "n1");
    assert!(error.contains("`transport.tls.key_file`") && error.contains("is not the key of"), "{error}");

    let others = Certificates::new();
    let foreign = Options { ca_file: good.ca_file.clone(), ..others.issue("n1") };
    let error = refusal(&foreign, "n1");
    assert!(error.contains("`transport.tls.certificate_file`") && error.contains("not issued by"), "{error}");

    let error = refusal(&all.issue_as("late", "late", SystemTime::now() - Duration::from_secs(60)), "late");
    assert!(error.contains("expired at") && error.contains("quorate certs node late --overwrite"), "{error}");

    for (file, key, garbage) in [
        (&good.certificate_file, "certificate_file", "hello"),
        (&good.certificate_file, "certificate_file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (&good.certificate_file, "certificate_file", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        (&good.ca_file, "ca_file", ""),
        (&good.ca_file, "ca_file", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        (&good.key_file, "key_file", "hello"),
        (&good.key_file, "key_file", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ] {
        let before = text(file);
        overwrite(file, garbage);
        let error = refusal(&good, "n1");
        assert!(error.starts_with(&format!("`transport.tls.{key}` = ")), "{garbage:?}: {error}");
        overwrite(file, &before);
    }
    assert!(Tls::open(&good, "n1").unwrap().is_some(), "and all is as it was");
}

#[test]
fn an_authority_comes_back_from_its_files_and_from_no_others() {
    let (_, made) = Authority::create(DAY).unwrap();
    let (_, other) = Authority::create(DAY).unwrap();
    assert!(Authority::load(&made.certificate, &made.key).is_ok());
    let refused = |certificate: &str, key: &str| Authority::load(certificate, key).map(drop).unwrap_err();
    assert_eq!(refused(&made.certificate, &other.key), "the key is not the one of the certificate");
    assert_eq!(refused("hello", &made.key), "there is no certificate in PEM form");
    assert!(
        refused("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &made.key)
            .contains("the certificate: ")
    );
    // As while one authority takes the place of another.
    assert!(Authority::load(&(other.certificate.clone() + &made.certificate), &made.key).is_ok());
    assert!(refused(&made.certificate, "hello").starts_with("the key: "));
    let again = Authority::load(&made.certificate, &made.key).unwrap();
    let node = again.issue("n1", DAY).unwrap();
    assert_eq!(refused(&node.certificate, &node.key), "the certificate is not one of an authority");
}

#[test]
fn a_node_outlives_its_authority_by_nothing() {
    let (authority, made) = Authority::create(DAY).unwrap();
    let node = authority.issue("n1", DAY * 30).unwrap();
    assert_eq!(node.not_after, made.not_after);
    let node = authority.issue("n1", DAY / 2).unwrap();
    assert!(node.not_after < made.not_after);
    let (late, _) = Authority::create_until(SystemTime::now() - DAY).unwrap();
    assert!(late.issue("n1", DAY).is_err_and(|error| error.contains("expired")));
    // Read back from its file, it knows the same.
    let again = Authority::load(&made.certificate, &made.key).unwrap().issue("n1", DAY * 30).unwrap();
    let apart = made.not_after.duration_since(again.not_after).unwrap();
    assert!(apart < Duration::from_secs(1), "whole seconds stand in a certificate: {apart:?}");
}

#[test]
fn a_caller_is_who_its_certificate_says_to_the_letter() {
    let named = |names: &[&str]| Counterpart::Named(names.iter().map(ToString::to_string).collect());
    assert!(Counterpart::Anyone.may_be("n1"));
    assert!(named(&["n1"]).may_be("n1"));
    for other in ["N1", "n1.", "n", "", "n10", "x.n1"] {
        assert!(!named(&["n1"]).may_be(other), "{other:?}");
        assert!(!named(&["*", "*.n1", "n*"]).may_be(other), "{other:?}");
    }
    assert_eq!(named(&["n1", "n2"]).check("n3").unwrap_err(), "the certificate is for n1, n2, not for n3");
    assert_eq!(named(&[]).check("n3").unwrap_err(), "the certificate is for no name, not for n3");
}

#[test]
fn files_are_read_again_when_they_change_and_bad_ones_change_nothing() {
    let all = Certificates::new();
    let options = all.issue("n1");
    let tls = Tls::open(&options, "n1").unwrap().unwrap();
    let read = || {
        tls.reload();
        tls.current()
    };
    let first = read();
    assert!(Arc::ptr_eq(&first, &read()), "nothing has changed");

    all.issue("n1");
    let second = read();
    assert!(!Arc::ptr_eq(&first, &second), "renewed");

    let key = text(&options.key_file);
    overwrite(&options.key_file, "half of a k");
    assert!(Arc::ptr_eq(&second, &read()), "what was good stays in use");
    fs::remove_file(options.key_file.as_ref().unwrap()).unwrap();
    assert!(Arc::ptr_eq(&second, &read()), "also without a file");
    overwrite(&options.key_file, &key);
    all.issue_as("n1", "n2", SystemTime::now() + DAY);
    assert!(Arc::ptr_eq(&second, &read()), "one for another node is none");
    all.issue("n1");
    assert!(!Arc::ptr_eq(&second, &read()), "and then a good one is");

    // Mended in a way that leaves no trace in the stamp: as by whoever may read it.
    let third = read();
    let moved = options.ca_file.as_ref().unwrap().with_extension("moved");
    all.issue("n1");
    fs::rename(options.ca_file.as_ref().unwrap(), &moved).unwrap();
    assert!(Arc::ptr_eq(&third, &read()));
    fs::rename(&moved, options.ca_file.as_ref().unwrap()).unwrap();
    tls.0.looked.lock().stamp = tls.0.files.stamp();
    assert!(!Arc::ptr_eq(&third, &read()), "what failed is tried again, be the stamp as it was");
}
