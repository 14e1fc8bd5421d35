//! Quoted fields and values: Go's string syntax, with `/` and `|` as further quotes.

use winnow::combinator::{alt, cut_err, delimited, dispatch, empty, fail, preceded, repeat};
use winnow::error::{ContextError, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::token::{any, take_while};

/// What stands between two of `mark`, escapes resolved. Bytes, since `\xHH` and octal escapes can make any.
pub(super) fn quoted<'i>(mark: char) -> impl ModalParser<&'i str, Vec<u8>, ContextError> {
    let content = repeat(0.., piece(mark)).fold(Vec::new, |mut all: Vec<u8>, piece: Vec<u8>| {
        all.extend(piece);
        all
    });
    let end = cut_err(mark).context(expected("the closing quote"));
    delimited(mark, content, end)
}

fn piece<'i>(mark: char) -> impl ModalParser<&'i str, Vec<u8>, ContextError> {
    let plain = take_while(1.., move |c| c != mark && c != '\\' && c != '\n' && !is_illegal(c))
        .map(|text: &str| text.as_bytes().to_vec());
    let escape = cut_err(escape(mark))
        .context(StrContext::Label("escape sequence"))
        .context(expected(r"one of \a \b \f \n \r \t \v \\ \NNN \xHH \uHHHH \UHHHHHHHH, or \ and the quote in use"));
    alt((plain, preceded('\\', escape)))
}

fn escape<'i>(mark: char) -> impl ModalParser<&'i str, Vec<u8>, ContextError> {
    move |input: &mut &'i str| {
        dispatch! {any;
            'a' => empty.value(vec![7]),
            'b' => empty.value(vec![8]),
            'f' => empty.value(vec![12]),
            'n' => empty.value(vec![b'\n']),
            'r' => empty.value(vec![b'\r']),
            't' => empty.value(vec![b'\t']),
            'v' => empty.value(vec![11]),
            '\\' => empty.value(vec![b'\\']),
            c if c == mark => empty.value(vec![mark as u8]),
            first @ '0'..='7' => number(2, 8).verify_map(move |rest| {
                let value = first.to_digit(8)? * 64 + rest;
                u8::try_from(value).ok().map(|byte| vec![byte])
            }),
            'x' => number(2, 16).verify_map(|value| u8::try_from(value).ok().map(|byte| vec![byte])),
            'u' => number(4, 16).verify_map(scalar),
            'U' => number(8, 16).verify_map(scalar),
            _ => fail,
        }
        .parse_next(input)
    }
}

fn number<'i>(digits: usize, radix: u32) -> impl ModalParser<&'i str, u32, ContextError> {
    take_while(digits, move |c: char| c.is_digit(radix))
        .verify_map(move |text: &str| u32::from_str_radix(text, radix).ok())
}

/// Go writes a lone surrogate as U+FFFD.
fn scalar(value: u32) -> Option<Vec<u8>> {
    let scalar = match value {
        0xD800..=0xDFFF => char::REPLACEMENT_CHARACTER,
        _ => char::from_u32(value)?,
    };
    Some(scalar.to_string().into_bytes())
}

pub(super) fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// Characters that containerd's scanner refuses wherever they stand: NUL, and what it cannot tell from broken UTF-8.
pub(super) fn is_illegal(c: char) -> bool {
    matches!(c, '\0' | char::REPLACEMENT_CHARACTER)
}
