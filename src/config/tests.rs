use super::*;
use std::{fs, time::Duration};

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, Error> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("node.toml");
    fs::write(&path, file).expect("writing the file");
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let flags = flags.iter().map(|(key, value)| Override::new(*key, *value, "--set"));
    Loaded::load(Some(&path), env, flags)
}

fn refusal(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(file, env, flags).expect_err("this configuration must be refused").problems().join("\n")
}

#[test]
fn defaults_are_valid() {
    Config::default().validate().expect("defaults");
    Config::for_node("a", "/tmp/a").validate().expect("for_node");
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "[replication]\nheartbeat = \"110ms\"\nelection_min = \"500ms\"\nelection_max = \"900ms\"\n";
    let env = [("QUORATE__REPLICATION__HEARTBEAT", "120ms"), ("QUORATE__REPLICATION__ELECTION_MIN", "600ms")];
    let loaded = load(file, &env, &[("replication.heartbeat", "130ms")]).expect("valid");
    let timing = &loaded.config.replication;
    assert_eq!(timing.heartbeat, Duration::from_millis(130));
    assert_eq!(timing.election_min, Duration::from_millis(600));
    assert_eq!(timing.election_max, Duration::from_millis(900));
    assert_eq!(loaded.config.cluster.shards, 16);
    assert_eq!(loaded.sources.of("replication.heartbeat").to_string(), "flag --set");
    assert_eq!(
        loaded.sources.of("replication.election_min").to_string(),
        "environment QUORATE__REPLICATION__ELECTION_MIN"
    );
    assert!(loaded.sources.of("replication.election_max").to_string().ends_with("node.toml:4"));
    assert_eq!(loaded.sources.of("cluster.shards"), Source::Default);
}

#[test]
fn text_becomes_what_the_key_is() {
    let env = [
        ("QUORATE__NODE__NAME", "7"),
        ("QUORATE__NODE__ZONE", "1"),
        ("QUORATE__CLUSTER__SHARDS", "32"),
        ("QUORATE__NODE__SEEDS", "127.0.0.1:7101, 127.0.0.1:7102"),
    ];
    let config = load("", &env, &[]).expect("valid").config;
    assert_eq!(config.node.name, "7");
    assert_eq!(config.node.zone.as_deref(), Some("1"));
    assert_eq!(config.cluster.shards, 32);
    assert_eq!(config.node.seeds, ["127.0.0.1:7101", "127.0.0.1:7102"]);
    let list = [("node.seeds", r#"["a:1","b:2"]"#)];
    assert_eq!(load("", &[], &list).expect("valid").config.node.seeds, ["a:1", "b:2"]);
}

#[test]
fn an_unknown_key_names_the_nearest_and_where_it_stands() {
    let message =
        refusal("[node]\nname = \"a\"\nlisten_address = \"x\"\n\n[replication]\nelection_mim = \"1s\"\n", &[], &[]);
    assert!(message.contains("`replication.election_mim`"), "{message}");
    assert!(message.contains("node.toml:6"), "{message}");
    assert!(message.contains("did you mean `replication.election_min`?"), "{message}");
    let message = refusal("", &[("QUORATE__NODE__SEED", "a:1")], &[]);
    assert!(message.contains("environment QUORATE__NODE__SEED"), "{message}");
    assert!(message.contains("did you mean `QUORATE__NODE__SEEDS`?"), "{message}");
    let message = refusal("", &[], &[("nod.name", "a")]);
    assert!(message.contains("did you mean `node.name`?"), "{message}");
    let message = refusal("[node]\nshards = 4\n", &[], &[]);
    assert!(message.contains("did you mean `cluster.shards`?"), "a key in the wrong section: {message}");
}

#[test]
fn a_value_of_the_wrong_type_names_key_value_source_and_an_example() {
    let message = refusal("[replication]\nheartbeat = \"5 parsecs\"\n", &[], &[]);
    assert!(message.contains("`replication.heartbeat` = \"5 parsecs\""), "{message}");
    assert!(message.contains("node.toml:2"), "{message}");
    assert!(message.contains("write it like the default, \"200ms\""), "{message}");
    let message = refusal("", &[("QUORATE__CLUSTER__SHARDS", "many")], &[]);
    assert!(message.contains("`cluster.shards`") && message.contains("many"), "{message}");
    let message = refusal("node = 3\n", &[], &[]);
    assert!(message.contains("is a section"), "{message}");
}

#[test]
fn values_that_disagree_are_both_named() {
    let message =
        refusal("[replication]\nelection_min = \"900ms\"\n", &[("QUORATE__REPLICATION__HEARTBEAT", "350ms")], &[]);
    assert!(message.contains("`replication.election_min` = \"900ms\""), "{message}");
    assert!(message.contains("`replication.election_max` = \"800ms\" (default)"), "{message}");
    assert!(
        message.contains("`replication.heartbeat` = \"350ms\" (environment QUORATE__REPLICATION__HEARTBEAT)"),
        "{message}"
    );
    let message = refusal("[node]\nlisten = \"127.0.0.1:80\"\nhttp = \"127.0.0.1:80\"\n", &[], &[]);
    assert!(message.contains("`node.listen`") && message.contains("`node.http`"), "{message}");
}

#[test]
fn all_problems_are_found_at_once() {
    let file = "[node]\nname = \"A B\"\nseeds = [\"a:1\", \"a:1\", \"nowhere\"]\n[cluster]\nshards = 0\nreplication_factor = 2\n[storage]\nsegment_bytes = \"8GiB\"\n";
    let error = load(file, &[], &[]).expect_err("six problems");
    assert_eq!(error.problems().len(), 6, "{:#?}", error.problems());
    assert!(error.to_string().contains("and 5 more"), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn a_node_that_others_can_reach_needs_a_secret_and_an_address() {
    let message = refusal("[node]\nlisten = \"0.0.0.0:7101\"\n", &[], &[]);
    assert!(message.contains("node.advertise") && message.contains("cluster.secret"), "{message}");
    let secret = [("QUORATE__CLUSTER__SECRET", "0123456789abcdef")];
    let file = "[node]\nlisten = \"0.0.0.0:7101\"\nhttp = \"0.0.0.0:80\"\nadvertise = \"a.example:7101\"\n";
    let config = load(file, &secret, &[]).expect("valid").config;
    assert_eq!(config.node.advertised(), "a.example:7101");
    assert_eq!(config.node.advertised_http(), "a.example:80");
}

#[test]
fn a_secret_is_never_shown() {
    let text = "correct horse battery staple";
    let loaded = load("", &[("QUORATE__CLUSTER__SECRET", text)], &[]).expect("valid");
    let config = &loaded.config;
    assert_eq!(config.cluster.secret.as_ref().map(Secret::expose), Some(text));
    let shown = [
        format!("{config:?}"),
        config.show(&loaded.sources),
        config.show_json(&loaded.sources).to_string(),
        serde_json::to_string(config).expect("serializable"),
    ];
    for shown in shown {
        assert!(!shown.contains(text), "{shown}");
    }
    let message = refusal("[cluster]\nsecret = \"short-one\"\nsecret_file = \"f\"\n", &[], &[]);
    assert!(!message.contains("short-one"), "{message}");
    let message = refusal("[cluster]\nsecret = 424242\n", &[], &[]);
    assert!(!message.contains("424242"), "{message}");
}

const TOKEN: &str = "correct-horse-battery-staple";

#[test]
fn tokens_are_listed_in_the_file_and_by_file_in_the_environment() {
    let file = format!(
        "[http]\nconnections_max = 5\n[[http.tokens]]\nname = \"ops\"\nrole = \"admin\"\ntoken = \"{TOKEN}\"\n\
         [[http.tokens]]\nname = \"shop\"\nrole = \"write\"\ntoken_file = \"/run/shop\"\n"
    );
    let loaded = load(&file, &[], &[]).expect("valid");
    let names: Vec<&str> = loaded.config.http.tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["ops", "shop"]);
    assert!(loaded.sources.of("http.tokens").to_string().ends_with("node.toml:3"), "{:?}", loaded.sources);
    let env = [("QUORATE__HTTP__TOKENS", "ops:admin:/run/ops, shop:write:/run/shop")];
    let tokens = load(&file, &env, &[]).expect("valid").config.http.tokens;
    assert_eq!((tokens.len(), tokens[0].token.is_none()), (2, true));
    assert_eq!(tokens[0].token_file.as_deref(), Some(Path::new("/run/ops")));
    let inline = format!(r#"[{{ name = "ops", role = "read", token = "{TOKEN}" }}]"#);
    let tokens = load("", &[], &[("http.tokens", &inline)]).expect("valid").config.http.tokens;
    assert_eq!(tokens[0].token.as_ref().map(Secret::expose), Some(TOKEN));
}

#[test]
fn tokens_are_shown_by_name_and_role_and_what_is_shown_can_be_loaded_where_it_holds_no_secret() {
    let list = [("http.tokens", "ops:admin:/run/ops,shop:write:/run/shop")];
    let loaded = load("", &[], &list).expect("valid");
    let shown = loaded.config.show(&loaded.sources);
    assert!(shown.contains(r#"tokens = [{ name = "ops", role = "admin", token_file = "/run/ops" }, "#), "{shown}");
    let again = load(&shown, &[], &[]).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(again.config.http.tokens, loaded.config.http.tokens);
    let sha256 = "1bd8fd47297046f993e608e398d5905b00a33e163c6b1172dd38887fed05ed6a";
    for (member, secret) in [("token", TOKEN), ("sha256", sha256)] {
        let list = format!(r#"[{{ name = "ops", role = "admin", {member} = "{secret}" }}]"#);
        let loaded = load("", &[("QUORATE__HTTP__TOKENS", &list)], &[]).expect("valid");
        let json = loaded.config.show_json(&loaded.sources);
        assert_eq!(json["http.tokens"]["value"][0]["name"], "ops");
        let shown = loaded.config.show(&loaded.sources);
        assert!(shown.contains("<redacted>") && shown.contains("QUORATE__HTTP__TOKENS"), "{shown}");
        assert!(load(&shown, &[], &[]).is_err(), "what stands for a secret is none");
        for text in [shown, json.to_string(), format!("{:?}", loaded.config)] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn wrong_tokens_are_complained_about_by_key_place_and_fix_and_never_quoted() {
    let with = |entry: &str| refusal(&format!("[http]\ntokens = [{entry}]\n"), &[], &[]);
    let fix = "write each as { name = \"ops\", role = \"admin\", token_file = ";
    for (entry, said) in [
        (format!("{{ name = \"ops\", token = \"{TOKEN}\" }}"), "entry 1 has no `role`"),
        (format!("{{ name = \"ops\", role = \"{TOKEN}\" }}"), "entry 1 has a `role` that is none of"),
        (format!("{{ name = \"ops\", role = \"read\", tokn = \"{TOKEN}\" }}"), "entry 1 has an unknown key `tokn`"),
        (format!("\"{TOKEN}\""), "entry 1 is not NAME:ROLE:FILE"),
        ("424242".into(), "entry 1 is neither"),
    ] {
        let message = with(&entry);
        assert!(message.starts_with("`http.tokens` = <redacted> (") && message.contains("node.toml:2"), "{message}");
        assert!(message.contains(said) && message.contains(fix), "{message}");
        assert!(!message.contains(TOKEN) && !message.contains("424242"), "{message}");
    }
    let message = with(&format!("\"ops:read:f\", {{ name = \"ops\", role = \"read\", token = \"{}\" }}", &TOKEN[..15]));
    assert!(message.contains("fewer than 16 characters; make one with `openssl rand -hex 32`"), "{message}");
    assert!(message.contains("the name `ops` stands there twice") && !message.contains(&TOKEN[..15]), "{message}");
    let message = refusal(&format!("[http]\ntokens = \"{TOKEN}\"\n"), &[], &[]);
    assert!(message.contains("is not a list") && !message.contains(TOKEN), "{message}");
}

#[test]
fn a_secret_file_is_read_and_checked() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("secret");
    let cluster = Cluster { secret_file: Some(path.clone()), ..Cluster::default() };
    assert!(cluster.resolve_secret().expect_err("absent").contains("secret_file"));
    fs::write(&path, "short\n").expect("writing");
    assert!(cluster.resolve_secret().expect_err("short").contains("openssl rand"));
    fs::write(&path, "0123456789abcdef0123\n").expect("writing");
    let secret = cluster.resolve_secret().expect("good").expect("set");
    assert_eq!(secret.expose(), "0123456789abcdef0123");
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let loaded = load("[node]\nname = \"b\"\nseeds = [\"a:1\"]\n", &[], &[]).expect("valid");
    let shown = loaded.config.show(&loaded.sources);
    let again = load(&shown, &[], &[]).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(schema::leaves(&again.config), schema::leaves(&loaded.config));
    assert!(shown.contains("node.toml:2"), "{shown}");
}

#[test]
fn broken_toml_names_the_line() {
    let message = refusal("[node]\nname = \"a\"\nname = \"b\"\n", &[], &[]);
    assert!(message.contains("node.toml:3"), "{message}");
    let missing = Loaded::load(Some(Path::new("/nonexistent/q.toml")), std::iter::empty(), []).expect_err("absent");
    assert!(missing.to_string().contains("/nonexistent/q.toml"), "{missing}");
}

#[test]
fn values_set_in_code_say_so() {
    let mut config = Config::default();
    config.replication.election_min = Duration::from_secs(9);
    let error = config.validate().expect_err("above election_max");
    assert!(error.to_string().contains("(set in code)"), "{error}");
}

#[test]
fn every_file_in_cluster_config_is_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).expect("cluster-config/") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            Config::load(Some(&path), std::iter::empty(), []).unwrap_or_else(|error| panic!("{error}"));
            names.push(path);
        }
    }
    assert!(names.len() >= 4, "expected the three nodes and the single one, found {names:?}");
}

#[test]
fn addresses_are_told_from_other_text() {
    use sections::split_address;
    assert_eq!(split_address("a.example:80"), Some(("a.example", 80)));
    assert_eq!(split_address("[::1]:80"), Some(("[::1]", 80)));
    for bad in ["", ":80", "a", "a:", "a:99999", "::1:80", "[::1]", "http://a:80", "a b:1", "[x]:1"] {
        assert_eq!(split_address(bad), None, "{bad}");
    }
}

#[test]
fn what_a_component_refuses_names_its_keys_and_their_sources() {
    let message = refusal("[transport]\ndead_after = \"600ms\"\n", &[], &[]);
    assert!(message.contains("`transport.dead_after` = \"600ms\"") && message.contains("node.toml:2"), "{message}");
    assert!(message.contains("`transport.heartbeat_interval` = \"500ms\" (default)"), "{message}");
    let message = refusal("", &[("QUORATE__MEMBERSHIP__PROBE_TIMEOUT", "800ms")], &[]);
    assert!(message.contains("`membership.probe_timeout` = \"800ms\" (environment"), "{message}");
    assert!(message.contains("`membership.probe_period`"), "{message}");
}

#[test]
fn bounds_of_nothing_are_refused() {
    let message = refusal(
        "[http]\nconnections_max = 0\nbody_bytes_max = \"0 B\"\ndrain_timeout = \"0s\"\nevent_silence_max = \"0s\"\n",
        &[],
        &[],
    );
    for key in ["http.connections_max", "http.body_bytes_max", "http.drain_timeout", "http.event_silence_max"] {
        assert!(message.contains(key), "{key}: {message}");
    }
}

#[test]
fn a_gateway_is_checked_as_a_whole_and_its_key_is_never_shown() {
    let message = refusal("[gateway]\nkind = \"http\"\nbase_url = \"api.example\"\n", &[], &[]);
    let said = "`gateway.base_url` = \"api.example\"";
    assert!(message.contains(said) && message.contains("write it as https://HOST"), "{message}");
    assert!(
        message.contains("`gateway.api_key` = unset") && message.contains("QUORATE__GATEWAY__API_KEY"),
        "{message}"
    );
    let message = refusal("[gateway]\nkind = \"stripe\"\n", &[], &[]);
    assert!(message.contains("`gateway.kind` = \"stripe\"") && message.contains("sandbox"), "{message}");
    let key = [("QUORATE__GATEWAY__API_KEY", "sk_live_4242")];
    let loaded = load("[gateway]\nkind = \"http\"\nbase_url = \"http://127.0.0.1:1\"\n", &key, &[]).expect("valid");
    assert_eq!(loaded.config.gateway.api_key.as_ref().map(Secret::expose), Some("sk_live_4242"));
    for shown in [loaded.config.show(&loaded.sources), format!("{:?}", loaded.config)] {
        assert!(!shown.contains("sk_live_4242"), "{shown}");
    }
    let message = refusal("[gateway]\nauthorization_validity = \"0s\"\n", &[], &[]);
    assert!(message.contains("`gateway.authorization_validity` = \"0s\""), "{message}");
}
