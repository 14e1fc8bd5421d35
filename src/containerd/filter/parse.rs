//! From text to selectors.

use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use winnow::combinator::{alt, cut_err, dispatch, eof, fail, opt, peek, preceded, separated, terminated};
use winnow::error::{ContextError, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::token::{any, one_of, take_while};

use super::eval::{Field, Selector, Test};
use super::quote::{expected, is_illegal, quoted};

/// Why an expression is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter {expression:?}, column {column}: {problem}")]
pub struct ParseError {
    /// The expression; the middle of a long one is left out, as messages travel in a header of limited size.
    expression: String,
    /// Where it went wrong: characters, counted from 1.
    column: usize,
    /// What was found or expected there.
    problem: String,
}

/// Longer expressions are shortened in messages; the one that containerd sends takes about 250.
const SHOWN: usize = 300;

/// Parses one expression; the empty one has no selectors.
pub(super) fn expression(text: &str) -> Result<Vec<Selector>, ParseError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let raws = selectors.parse(text).map_err(|error| refuse(text, error.offset(), problem(error.inner())))?;
    raws.into_iter()
        .map(|raw| {
            let at = raw.value_at.map_or(0, |rest| text.len() - rest);
            raw.compile().map_err(|why| refuse(text, at, format!("invalid regular expression: {why}")))
        })
        .collect()
}

/// A selector whose regular expression is not compiled yet.
struct Raw {
    path: Vec<Vec<u8>>,
    operation: Option<(Operator, Vec<u8>)>,
    /// How much of the input was left before the value.
    value_at: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
}

impl Raw {
    fn compile(self) -> Result<Selector, String> {
        let test = match self.operation {
            None => Test::Present,
            Some((Operator::Equal, value)) => Test::Equal(value),
            Some((Operator::NotEqual, value)) => Test::NotEqual(value),
            Some((Operator::Matches, value)) => Test::Matches(regex(value)?),
        };
        Ok(Selector { field: Field::from_path(&self.path), test })
    }
}

fn regex(pattern: Vec<u8>) -> Result<Regex, String> {
    let pattern = String::from_utf8(pattern).map_err(|error| error.utf8_error().to_string())?;
    // The crate draws the pattern with a caret on several lines; the last one says what is wrong.
    Regex::new(&pattern).map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        last.strip_prefix("error: ").unwrap_or(last).to_owned()
    })
}

fn selectors(input: &mut &str) -> ModalResult<Vec<Raw>> {
    terminated(separated(1.., cut_err(selector), ','), eof.context(expected("`,` or the end"))).parse_next(input)
}

fn selector(input: &mut &str) -> ModalResult<Raw> {
    let path = separated(1.., cut_err(field), '.').parse_next(input)?;
    if peek(opt(alt((",", eof)))).parse_next(input)?.is_some() {
        return Ok(Raw { path, operation: None, value_at: None });
    }
    let operator = preceded(space, operator).parse_next(input)?;
    space.parse_next(input)?;
    let value_at = Some(input.len());
    let value = value(operator).parse_next(input)?;
    Ok(Raw { path, operation: Some((operator, value)), value_at })
}

fn field(input: &mut &str) -> ModalResult<Vec<u8>> {
    let bare = take_while(1.., is_field).map(|text: &str| text.as_bytes().to_vec());
    preceded(space, alt((quoted('"'), bare)))
        .context(expected("a field (letters, digits and `_`, or \"quoted\")"))
        .parse_next(input)
}

fn operator(input: &mut &str) -> ModalResult<Operator> {
    take_while(1.., is_operator)
        .verify_map(|text: &str| match text {
            "==" => Some(Operator::Equal),
            "!=" => Some(Operator::NotEqual),
            "~=" => Some(Operator::Matches),
            _ => None,
        })
        .context(StrContext::Expected(StrContextValue::StringLiteral("==")))
        .context(StrContext::Expected(StrContextValue::StringLiteral("!=")))
        .context(StrContext::Expected(StrContextValue::StringLiteral("~=")))
        .parse_next(input)
}

fn value<'i>(operator: Operator) -> impl ModalParser<&'i str, Vec<u8>, ContextError> {
    move |input: &mut &'i str| {
        dispatch! {peek(any);
            '"' => quoted('"'),
            '/' if operator == Operator::Matches => quoted('/'),
            '|' if operator == Operator::Matches => quoted('|'),
            '/' | '|' => fail.context(expected("another first character: `/` and `|` quote values of `~=` only")),
            _ => bare_value,
        }
        .context(expected("a value"))
        .parse_next(input)
    }
}

/// containerd takes any first character that does not begin another token, even a control character.
fn bare_value(input: &mut &str) -> ModalResult<Vec<u8>> {
    let first = one_of(|c: char| !is_operator(c) && !matches!(c, ',' | '.') && !c.is_whitespace() && !is_illegal(c));
    (first, take_while(0.., is_value)).take().map(|text: &str| text.as_bytes().to_vec()).parse_next(input)
}

/// Go's `unicode.IsSpace` and Rust's `is_whitespace` are the same property.
fn space(input: &mut &str) -> ModalResult<()> {
    take_while(0.., char::is_whitespace).void().parse_next(input)
}

fn is_field(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

fn is_operator(c: char) -> bool {
    matches!(c, '=' | '!' | '~')
}

/// Go's `unicode.IsGraphic`, less white space and the comma.
fn is_value(c: char) -> bool {
    static GRAPHIC: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S}]$").expect("a constant"));
    if c.is_ascii() {
        return c.is_ascii_graphic() && c != ',';
    }
    !is_illegal(c) && GRAPHIC.is_match(c.encode_utf8(&mut [0; 4]))
}

fn refuse(text: &str, offset: usize, problem: String) -> ParseError {
    let column = text[..offset].chars().count() + 1;
    let count = text.chars().count();
    let expression = if count <= SHOWN {
        text.to_owned()
    } else {
        let start: String = text.chars().take(SHOWN / 2).collect();
        let end: String = text.chars().skip(count - SHOWN / 2).collect();
        format!("{start}…{end}")
    };
    ParseError { expression, column, problem }
}

/// The innermost thing that was expected.
fn problem(error: &ContextError) -> String {
    let mut problem = String::new();
    let mut wanted: Vec<String> = Vec::new();
    for context in error.context() {
        match context {
            StrContext::Label(label) => problem = format!("invalid {label}, "),
            StrContext::Expected(what @ StrContextValue::StringLiteral(_)) => wanted.push(what.to_string()),
            StrContext::Expected(what) if wanted.is_empty() => wanted.push(what.to_string()),
            _ => {}
        }
    }
    let _ = write!(problem, "expected {}", wanted.join(" or "));
    problem
}
