//! Filters: any text is refused with a place or means what its parts mean, and what is written in the grammar has the
//! verdict that its meaning has.
//!
//! An input as text: name, parent, kind and `label=value` of a record, a line each; the rest is an expression.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use cvmfs_snapshotter::containerd::filter::{Fields, Filters, IndexKey};

/// A refusal travels in a header of limited size.
const MAX_MESSAGE: usize = 4096;

#[derive(Debug, Default)]
struct Record {
    name: String,
    parent: String,
    kind: String,
    labels: BTreeMap<String, String>,
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
        self.labels.get(key).map(String::as_str)
    }
}

/// Panics unless the filter means what a plain reading of it says.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check_text(text);
    }
    // An input that is too short means nothing.
    let _ = check_made(&mut Unstructured::new(data));
}

/// The verdict, `None` for a refusal.
fn verdict(expressions: &[&str], record: &Record) -> Option<bool> {
    let expressions: Vec<String> = expressions.iter().map(|text| (*text).to_owned()).collect();
    match Filters::parse(&expressions) {
        Ok(filters) => {
            let matches = filters.matches(record);
            if let (true, Some(keys)) = (matches, filters.index_keys()) {
                let found = keys.iter().any(|key| match key {
                    IndexKey::Name(name) => *name == record.name,
                    IndexKey::Parent(parent) => *parent == record.parent,
                    IndexKey::Label { key, value } => record.label(key) == Some(value),
                });
                assert!(found, "{expressions:?} does not find {record:?} through {keys:?}");
            }
            Some(matches)
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(", column ") && message.len() <= MAX_MESSAGE, "{message}");
            None
        }
    }
}

fn check_text(text: &str) {
    let mut lines = text.splitn(5, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (name, parent, kind, label, expression) = (line(), line(), line(), line(), line());
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let record = Record { name: name.into(), parent: parent.into(), kind: kind.into(), labels };

    let whole = verdict(&[expression], &record);
    if expression.is_empty() {
        assert_eq!(whole, Some(true));
        return;
    }
    assert_eq!(verdict(&[&format!(" {expression}")], &record), whole, "white space before a field: {expression:?}");
    if whole.is_some() {
        assert_eq!(verdict(&[&format!("{expression},{expression}")], &record), whole, "and: {expression:?}");
        assert_eq!(verdict(&[expression, "kind==nothing"], &record), Some(whole == Some(true) || kind == "nothing"));
    }
    // Without quotes a comma separates.
    if !expression.contains(['"', '/', '|', '\\']) {
        let parts: Vec<&str> = expression.split(',').collect();
        let all = parts.iter().map(|part| if part.is_empty() { None } else { verdict(&[part], &record) });
        let all = all.collect::<Option<Vec<bool>>>().map(|all| all.iter().all(|matches| *matches));
        assert_eq!(whole, all, "{expression:?} and its parts");
    }
}

#[derive(Debug, Arbitrary)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
    Unknown,
}

#[derive(Debug, Arbitrary)]
enum Test {
    Present,
    Equal,
    NotEqual,
    Contains,
}

/// A filter that is written down from its meaning.
fn check_made(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let text = |input: &mut Unstructured<'_>| -> arbitrary::Result<String> {
        Ok(match input.int_in_range(0..=3)? {
            0 => "a".to_owned(),
            1 => String::new(),
            _ => String::arbitrary(input)?,
        })
    };
    let record = Record {
        name: text(input)?,
        parent: text(input)?,
        kind: (*input.choose(&["active", "view", "committed"])?).to_owned(),
        labels: BTreeMap::from([(text(input)?, text(input)?)]),
    };
    let mut expression = String::new();
    let mut expected = true;
    for number in 0..input.int_in_range(1..=4)? {
        let (field, test) = (Field::arbitrary(input)?, Test::arbitrary(input)?);
        let (path, actual) = match field {
            Field::Name => ("name".to_owned(), Some(&record.name)),
            Field::Parent => ("parent".to_owned(), Some(&record.parent)),
            Field::Kind => ("kind".to_owned(), Some(&record.kind)),
            Field::Label(key) => {
                let key = if bool::arbitrary(input)? {
                    record.labels.keys().next().cloned().unwrap_or_default()
                } else {
                    key
                };
                (format!("labels.{}", quoted(input, &key, '"')?), record.labels.get(&key))
            }
            Field::Unknown => ("\"no such field\"".to_owned(), None),
        };
        let value = match (bool::arbitrary(input)?, actual) {
            (true, Some(actual)) => actual.clone(),
            _ => text(input)?,
        };
        let space = *input.choose(&["", " ", "\t\u{2003}"])?;
        let (written, matches) = match test {
            Test::Present => (path, actual.is_some()),
            Test::Equal => (written(input, &path, "==", space, &value)?, actual == Some(&value)),
            Test::NotEqual => (written(input, &path, "!=", space, &value)?, actual.map_or("", String::as_str) != value),
            Test::Contains => {
                let mark = *input.choose(&['"', '/', '|'])?;
                let pattern = quoted(input, &regex::escape(&value), mark)?;
                (format!("{path}{space}~={space}{pattern}"), actual.map_or("", String::as_str).contains(&value))
            }
        };
        let comma = if number == 0 { "" } else { "," };
        expression = format!("{expression}{comma}{space}{written}");
        expected &= matches;
    }
    assert_eq!(verdict(&[&expression], &record), Some(expected), "{expression:?} on {record:?}");
    Ok(())
}

fn written(
    input: &mut Unstructured<'_>,
    path: &str,
    operator: &str,
    space: &str,
    value: &str,
) -> arbitrary::Result<String> {
    let is_bare = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let value = if is_bare && bool::arbitrary(input)? { value.to_owned() } else { quoted(input, value, '"')? };
    Ok(format!("{path}{space}{operator}{space}{value}"))
}

/// As Go may write it: what has to be escaped is, what can be is sometimes.
fn quoted(input: &mut Unstructured<'_>, text: &str, mark: char) -> arbitrary::Result<String> {
    let mut out = String::from(mark);
    for c in text.chars() {
        let must = c == mark || matches!(c, '\\' | '\n' | '\0' | char::REPLACEMENT_CHARACTER);
        if !must && !input.ratio(1, 8)? {
            out.push(c);
            continue;
        }
        let number = u32::from(c);
        match c {
            '\n' => out.push_str("\\n"),
            '\\' => out.push_str("\\\\"),
            _ if c == mark => out.extend(['\\', mark]),
            _ if number < 0x80 && bool::arbitrary(input)? => out.push_str(&format!("\\{number:03o}")),
            _ if number < 0x80 => out.push_str(&format!("\\x{number:02x}")),
            _ if number < 0x10000 => out.push_str(&format!("\\u{number:04x}")),
            _ => out.push_str(&format!("\\U{number:08X}")),
        }
    }
    out.push(mark);
    Ok(out)
}
