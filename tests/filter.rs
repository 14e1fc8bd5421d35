//! The filters against containerd's own answers, the expressions that containerd sends, and random input.

use std::collections::BTreeMap;

use cvmfs_snapshotter::containerd::filter::{Fields, Filter, Filters, IndexKey};
use cvmfs_snapshotter::containerd::label::TARGET;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    parent: String,
    kind: String,
    labels: Option<BTreeMap<String, String>>,
}

impl Fields for Record {
    fn name(&self) -> &str {
        &self.name
    }
    fn parent(&self) -> &str {
        &self.parent
    }
    fn kind(&self) -> &str {
        &self.kind
    }
    fn label(&self, key: &str) -> Option<&str> {
        self.labels.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Deserialize)]
struct Row {
    filters: Vec<String>,
    matches: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct Table {
    note: String,
    records: Vec<Record>,
    rows: Vec<Row>,
}

/// containerd finds a regular expression malformed only when it is used, and then nothing matches.
fn refused_expression(row: &Row, error: &str) -> bool {
    row.matches.as_ref().is_some_and(Vec::is_empty) && error.contains("invalid regular expression")
}

#[test]
fn agrees_with_containerd() {
    let table: Table = serde_json::from_str(include_str!("data/filters.json")).unwrap();
    assert!(table.note.contains("v2.4.2") && table.rows.len() > 600);
    let mut wrong = Vec::new();
    for row in &table.rows {
        let ours = Filters::parse(&row.filters).map(|filters| {
            let hits = table.records.iter().enumerate().filter(|(_, record)| filters.matches(*record));
            hits.map(|(index, _)| index).collect::<Vec<_>>()
        });
        match (&ours, &row.matches) {
            (Ok(ours), Some(theirs)) if ours == theirs => {}
            (Err(_), None) => {}
            (Err(error), _) if refused_expression(row, &error.to_string()) => {}
            _ => wrong.push(format!("{:?}: theirs {:?}, ours {ours:?}", row.filters, row.matches)),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), table.rows.len(), wrong.join("\n"));
}

/// Whatever a filter matches must be found through its keys.
#[test]
fn index_keys_lose_nothing() {
    let table: Table = serde_json::from_str(include_str!("data/filters.json")).unwrap();
    let mut indexed = 0;
    for row in &table.rows {
        let Ok(filters) = Filters::parse(&row.filters) else { continue };
        let Some(keys) = filters.index_keys() else { continue };
        indexed += 1;
        assert_eq!(keys.len(), row.filters.len());
        for record in table.records.iter().filter(|record| filters.matches(*record)) {
            let found = keys.iter().any(|key| match key {
                IndexKey::Name(name) => record.name == *name,
                IndexKey::Parent(parent) => record.parent == *parent,
                IndexKey::Label { key, value } => record.label(key) == Some(value),
            });
            assert!(found, "{:?} loses {record:?}", row.filters);
        }
    }
    assert!(indexed > 50);
}

fn keys(expressions: &[&str]) -> Option<Vec<IndexKey>> {
    let expressions: Vec<_> = expressions.iter().map(ToString::to_string).collect();
    Filters::parse(&expressions).unwrap().index_keys()
}

#[test]
fn index_keys_take_the_best_equality() {
    let target = || IndexKey::Label { key: TARGET.into(), value: "sha256:aa".into() };
    let sent = r#"labels."containerd.io/snapshot.ref"==sha256:aa,parent=="default/6/a \"b\"""#;
    assert_eq!(keys(&[sent]), Some(vec![target()]));
    assert_eq!(keys(&["parent==p"]), Some(vec![IndexKey::Parent("p".into())]));
    assert_eq!(keys(&[r#"parent=="""#]), Some(vec![IndexKey::Parent(String::new())]));
    assert_eq!(keys(&[&format!("{sent},name==n")]), Some(vec![IndexKey::Name("n".into())]));
    assert_eq!(keys(&["name==a", sent]), Some(vec![IndexKey::Name("a".into()), target()]));
    for scan in [&[][..], &[""], &["name==a", "kind==view"], &["name!=a"], &["labels.x==y"], &[r#"name=="\xff""#]] {
        assert_eq!(keys(scan), None, "{scan:?}");
    }
}

/// core/snapshots/testsuite, case Walk; the others are in the table too.
#[test]
fn conformance_suite() {
    for expressions in [
        &[r#"labels."containerd.io/gc.root"==check-walk"#][..],
        &[r#"kind==active,labels."containerd.io/gc.root"==check-walk"#],
        &[r#"kind==view,labels."containerd.io/gc.root"==check-walk"#],
        &[r#"kind==committed,labels."containerd.io/gc.root"==check-walk"#],
        &["name==p", "name==a-np-wl"],
        &["name==a-wl,labels.l"],
        &["parent==p"],
        &[r#"parent!="",labels."containerd.io/gc.root"==check-walk"#],
        &["labels.l"],
        &["labels.l==2"],
    ] {
        let expressions: Vec<_> = expressions.iter().map(ToString::to_string).collect();
        let filters = Filters::parse(&expressions).unwrap();
        let record = Record {
            name: if expressions.len() == 2 { "p" } else { "a-wl" }.into(),
            parent: "p".into(),
            kind: ["active", "view", "committed"]
                .into_iter()
                .find(|k| expressions[0].contains(k))
                .unwrap_or("x")
                .into(),
            labels: Some(
                [("containerd.io/gc.root", "check-walk"), ("l", "2")].map(|(k, v)| (k.into(), v.into())).into(),
            ),
        };
        assert!(filters.matches(&record), "{expressions:?}");
        assert!(!filters.matches(&Record { kind: "x".into(), ..Record::default() }), "{expressions:?}");
    }
}

/// The differences from RE2 that the module's documentation lists.
#[test]
fn regular_expressions_of_the_regex_crate() {
    let record = Record { name: "٣é&".into(), ..Record::default() };
    let matches = |pattern: &str| Filter::parse(&format!("name~={pattern}")).map(|filter| filter.matches(&record));
    for known in [r#""^\\d\\w""#, r#""\\b&""#, "a**", "[[a]é]"] {
        assert_eq!(matches(known), Ok(true), "{known}");
    }
    assert_eq!(matches(r#""[&&a]""#), Ok(false));
    for refused in ["a{", r"\Qa\E", "[[a]"] {
        assert!(matches(refused).is_err(), "{refused}");
    }
}

#[test]
fn error_messages() {
    let long = format!("name==\"{}\" x", "ä".repeat(1000));
    let messages: Vec<String> = [
        "name=",
        "name==",
        "name===x",
        "name==x ",
        "name==x,",
        ",name",
        "naïve==x",
        "name.",
        "name.==x",
        "name==/x/",
        "'name'==x",
        "name==.x",
        "name==\"x",
        r#"name=="\q""#,
        r#"name=="\400""#,
        r#"name=="\x4""#,
        r#"name=="\UFFFFFFFF""#,
        "name~=/\\//,parent~=[",
        "name~=\"\\xff\"",
        "name\0",
        &long,
    ]
    .iter()
    .map(|expression| Filter::parse(expression).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(messages.join("\n"));
}

/// What Go's `%q` writes.
fn go_quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '\x07' => out.push_str(r"\a"),
            '\x08' => out.push_str(r"\b"),
            '\x0c' => out.push_str(r"\f"),
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\t' => out.push_str(r"\t"),
            '\x0b' => out.push_str(r"\v"),
            '\\' | '"' => out.extend(['\\', c]),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!(r"\x{:02x}", c as u32)),
            // Stands for everything that is not printable.
            c if c.is_control() || c.is_whitespace() && c != ' ' => out.push_str(&format!(r"\u{:04x}", c as u32)),
            c if c as u32 > 0xffff && (c as u32).is_multiple_of(2) => out.push_str(&format!(r"\U{:08x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in any::<String>()) {
        let _ = Filter::parse(&text);
    }

    #[test]
    fn any_tokens_parse_or_are_refused(text in r#"[ .,=!~"/|\\a-cxuU0-9é\x{200d}]{0,40}"#) {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(error.to_string().contains(", column "));
        }
    }

    /// containerd cannot read U+FFFD, and neither do we; everything else survives its quoting.
    #[test]
    fn quoted_values_round_trip(name in any::<String>(), label in any::<String>()) {
        prop_assume!(!name.contains('\u{fffd}') && !label.contains('\u{fffd}'));
        let filter = format!("name=={},labels.{}==1", go_quote(&name), go_quote(&label));
        let record = Record { name: name.clone(), labels: Some([(label, "1".to_owned())].into()), ..Record::default() };
        let filters = Filters::parse(&[filter]).unwrap();
        prop_assert!(filters.matches(&record));
        prop_assert_eq!(filters.index_keys(), Some(vec![IndexKey::Name(name)]));
    }
}
