use super::*;

fn settings(url: &str) -> Settings {
    Settings { url: url.into(), enabled_events: vec!["order.*".into()], description: None, enabled: true }
}

fn create(url: &str) -> What {
    What::Create { settings: settings(url), secret: Secret::random() }
}

/// Endpoints that are told things at certain times.
#[derive(Default)]
struct Told {
    state: State,
    version: u64,
}

impl Told {
    fn at(&mut self, now_ms: u64, id: &str, if_version: Option<u64>, what: What) -> Result<Reply, Rejection> {
        let context = Context { id: ALL, version: self.version, now_ms, random: 1 };
        match Endpoints::decide(&self.state, Command { id: id.into(), if_version, what }, &context) {
            Decision::Reject(rejection) => Err(rejection),
            Decision::Accept { events, effects, reply } => {
                assert_eq!(effects, []);
                self.version += events.len() as u64;
                events.iter().for_each(|event| Endpoints::evolve(&mut self.state, event));
                Ok(reply)
            }
        }
    }

    fn one(&mut self, now_ms: u64, what: What) -> Result<Endpoint, Rejection> {
        match self.at(now_ms, "we_1", None, what)? {
            Reply::Endpoint(endpoint) => Ok(*endpoint),
            Reply::Deleted => panic!("deleted"),
        }
    }
}

#[test]
fn each_endpoint_has_a_queue_of_its_own_and_there_are_so_many() {
    let mut told = Told::default();
    for number in 0..ENDPOINTS_MAX {
        told.at(1, &format!("we_{number}"), None, create("http://x/")).expect("room");
    }
    assert_eq!(told.at(1, "we_x", None, create("http://x/")), Err(Rejection::TooManyEndpoints));
    assert_eq!(told.at(2, "we_3", None, What::Delete), Ok(Reply::Deleted));
    told.at(3, "we_x", None, create("http://x/")).expect("the place of the one that went");
    let mut slots: Vec<u8> = told.state.endpoints.iter().map(|endpoint| endpoint.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..ENDPOINTS_MAX).collect::<Vec<_>>());
}

#[test]
fn a_condition_is_about_the_endpoint_and_not_about_all_of_them() {
    let mut told = Told::default();
    told.at(1, "we_0", None, create("http://x/")).expect("made");
    assert_eq!(told.at(1, "we_1", Some(3), create("http://x/")), Err(Rejection::VersionMismatch { actual: 0 }));
    told.at(1, "we_1", Some(0), create("http://x/")).expect("it was not there");
    let disable = || What::Update(Changes { enabled: Some(false), ..Changes::default() });
    assert_eq!(told.at(2, "we_1", Some(2), disable()), Err(Rejection::VersionMismatch { actual: 1 }));
    told.at(2, "we_1", Some(1), disable()).expect("at that version");
    assert_eq!(told.at(3, "we_1", Some(1), What::Delete), Err(Rejection::VersionMismatch { actual: 2 }));
    for what in [disable(), What::Delete, What::RotateSecret { secret: Secret::random(), grace_ms: 1 }] {
        assert_eq!(told.at(4, "we_9", Some(1), what), Err(Rejection::NotFound));
    }
}

#[test]
fn an_update_changes_what_it_names_and_one_without_change_leaves_no_trace() {
    let mut told = Told::default();
    let made = told.one(5, create("http://x/")).expect("made");
    let changes = Changes { url: Some("http://y/".into()), description: Some("mine".into()), ..Changes::default() };
    let changed = told.one(6, What::Update(changes.clone())).expect("changed");
    assert_eq!((changed.url.as_str(), changed.description.as_deref(), changed.version), ("http://y/", Some("mine"), 2));
    assert_eq!((&changed.enabled_events, &changed.secret), (&made.enabled_events, &made.secret));
    let version = told.version;
    assert_eq!(told.one(7, What::Update(changes)), Ok(changed));
    assert_eq!(told.version, version);
    let cleared = Changes { description: Some(String::new()), ..Changes::default() };
    assert_eq!(told.one(8, What::Update(cleared)).expect("changed").description, None);
}

#[test]
fn who_is_enabled_again_hears_from_then_on() {
    let mut told = Told::default();
    assert_eq!(told.one(5, create("http://x/")).expect("made").since_ms, 5);
    let enable = |enabled| What::Update(Changes { enabled: Some(enabled), ..Changes::default() });
    let off = told.one(6, enable(false)).expect("changed");
    assert!(!off.wants("order.created"));
    let on = told.one(9, enable(true)).expect("changed");
    assert!(on.wants("order.created") && !on.wants("payment.created"));
    assert_eq!(on.since_ms, 9);
    let moved = told.one(12, What::Update(Changes { url: Some("http://y/".into()), ..Changes::default() }));
    assert_eq!(moved.expect("changed").since_ms, 9, "it was enabled all the time");
}

#[test]
fn a_replaced_secret_signs_until_its_grace_is_over() {
    let mut told = Told::default();
    let first = told.one(0, create("http://x/")).expect("made").secret;
    let rotate = |grace_ms| What::RotateSecret { secret: Secret::random(), grace_ms };
    let rotated = told.one(10, rotate(100)).expect("rotated");
    fn signing(endpoint: &Endpoint, at: u64) -> Vec<&Secret> {
        endpoint.secrets_at(at).collect()
    }
    assert_eq!(signing(&rotated, 109), [&rotated.secret, &first]);
    assert_eq!(signing(&rotated, 110), [&rotated.secret]);
    told.one(20, rotate(1000)).expect("rotated");
    told.one(30, rotate(1000)).expect("rotated");
    assert_eq!(told.one(40, rotate(1000)), Err(Rejection::TooManySecrets));
    let later = told.one(110, rotate(1000)).expect("one has run out");
    assert_eq!(later.old_secrets.len(), OLD_SECRETS_MAX);
    let stolen = told.one(120, rotate(0)).expect("at once");
    assert_eq!(signing(&stolen, 120), [&stolen.secret]);
}
