use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("/etc/c.toml"), text, &Overrides::default())
}

fn refused(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn without_a_file_everything_is_as_with_the_go_daemon() {
    insta::assert_snapshot!(parse("").unwrap().to_toml());
}

#[test]
fn the_keys_of_the_go_daemon_mean_one_repository() {
    let path = |text: &str| {
        let config = parse(text).unwrap();
        assert_eq!(config.repositories.len(), 1);
        (config.repositories[0].name.clone(), config.repositories[0].path.display().to_string())
    };
    let named = |name: &str, path: &str| (name.to_owned(), path.to_owned());
    assert_eq!(path("repository = 'sft.cern.ch'"), named("sft.cern.ch", "/cvmfs/sft.cern.ch"));
    assert_eq!(path("absolute-mountpoint = '/mnt/x'"), named("unpacked.cern.ch", "/mnt/x"));
    assert_eq!(path("repository = 'a.b'\nabsolute-mountpoint = ''"), named("a.b", "/cvmfs/a.b"));
}

#[test]
fn a_full_file_is_taken_as_it_is() {
    let text = r#"
address = "/run/x.sock"
root = "/srv/state"
log-level = "debug"
log-format = "json"

[timeouts]
probe = "500ms"
first-mount = "1m"
markers = "20s"

[[repositories]]
name = "unpacked"
path = "/cvmfs/unpacked.cern.ch"
kind = "cvmfs"

[[repositories]]
name = "nfs"
path = "/nfs/layers"
kind = "directory"
verify = "required"
"#;
    let config = parse(text).unwrap();
    insta::assert_snapshot!(config.to_toml());
    assert_eq!(parse(&config.to_toml()).unwrap(), config, "what is dumped is read again");
}

#[test]
fn flags_beat_the_file() {
    let overrides =
        Overrides { address: Some("/a.sock".into()), root: Some("/r".into()), log_level: Some(LogLevel::Warn) };
    let config =
        Config::parse(Path::new("/c"), "root = '/x'\naddress = '/y'\nlog-level = 'debug'", &overrides).unwrap();
    assert_eq!((config.address, config.root, config.log_level), ("/a.sock".into(), "/r".into(), LogLevel::Warn));
    let relative = Overrides { root: Some("r".into()), ..Overrides::default() };
    insta::assert_snapshot!(Config::parse(Path::new("/c"), "", &relative).unwrap_err(), @r#"--root: "r" is a relative path: write the path from / on"#);
}

#[test]
fn what_cannot_work_is_refused_with_its_line() {
    let repository =
        |name: &str, path: &str| format!("[[repositories]]\nname = {name}\npath = {path}\nkind = 'directory'\n");
    let texts = [
        "repositry = 'x'".to_owned(),
        "\nroot = 7".to_owned(),
        "root = 'relative'".to_owned(),
        "\n\naddress = '/run/../x'".to_owned(),
        "repository = '../x'".to_owned(),
        "log-level = 'loud'".to_owned(),
        "[timeouts]\nprobe = 'soon'".to_owned(),
        "[timeouts]\nprobe = '0s'".to_owned(),
        "[timeouts]\nmarkers = '100000000000y'".to_owned(),
        "[timeouts]\nmarkers = '61m'".to_owned(),
        "[timeouts]\nprobes = '1s'".to_owned(),
        repository("'a'", "'x'"),
        repository("'a'", "'/x:y'"),
        repository("'a'", "'/x,y'"),
        repository("'a'", r#""/x\ny""#),
        repository("''", "'/x'"),
        repository("'a'", "'/x'") + &repository("'a'", "'/y'"),
        repository("'a'", "'/x'") + &repository("'b'", "'/x'"),
        repository("'a'", "'/x'").replace("directory", "nfs"),
        "repository = 'a.b'\n".to_owned() + &repository("'a'", "'/x'"),
    ];
    let shown: Vec<String> = texts.iter().map(|text| refused(text)).collect();
    insta::assert_snapshot!(shown.join("\n---\n"));
}

#[test]
fn only_a_file_that_is_named_must_exist() {
    let missing = Path::new("/nonexistent/config.toml");
    assert!(matches!(Config::load(Some(missing), &Overrides::default()), Err(Error::Unreadable { .. })));
}
