//! Commands for a container that compare inside it what they print.
//!
//! Of a container that ends at once, clients may lose what it prints when the machine is busy, and succeed all the same:
//! what they print must not decide. Here the container itself fails where the text is another one. It needs a shell.

/// Fails with 9 and says what it found, where a command prints anything else.
const COMPARE: &str = r#"expected=$1; shift; found=$("$@") || exit; [ "$found" = "$expected" ] && exit
printf 'expected: %s\nfound: %s\n' "$expected" "$found" >&2; exit 9"#;

/// Fails where a list has a name that matches, or has not the one that it must have. Names are whole lines.
const LIST: &str = r#"must=$1 never=$2; shift 2; found=$("$@") || exit
printf '%s\n' "$found" | grep -qxF "$must" && ! printf '%s\n' "$found" | grep -qE "$never" && exit
printf 'must: %s\nnever: %s\nfound: %s\n' "$must" "$never" "$found" >&2; exit 9"#;

/// The command that runs another one, and fails unless that one succeeds and prints this text. Newlines at the end do not
/// count.
pub fn prints<'a>(expected: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", COMPARE, "sh", expected.trim_end_matches('\n')], command].concat()
}

/// The command that runs another one, and fails unless that one succeeds and prints a list with the line `must`, and
/// without any line that the extended regular expression `never` matches.
pub fn lists<'a>(must: &'a str, never: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", LIST, "sh", must, never], command].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeeds(command: &[&str]) -> bool {
        let output = std::process::Command::new(command[0]).args(&command[1..]).output().expect("a shell");
        assert!(output.status.success() || !output.stderr.is_empty() || output.status.code() != Some(9), "no word");
        output.status.success()
    }

    #[test]
    fn another_text_or_a_failure_is_a_failure() {
        assert!(succeeds(&prints("a b\nc\n", &["printf", "a b\nc\n"])));
        assert!(!succeeds(&prints("a", &["printf", "a\nb"])));
        assert!(!succeeds(&prints("a", &["printf", ""])));
        assert!(!succeeds(&prints("", &["false"])));
        assert!(succeeds(&prints("", &["true"])));
    }

    #[test]
    fn a_list_has_what_it_must_have_and_nothing_that_it_must_not() {
        let never = "deleted|[.]wh[.]";
        assert!(succeeds(&lists("./new", never, &["printf", "./old\n./new\n"])));
        assert!(!succeeds(&lists("./new", never, &["printf", "./newer\n"])));
        assert!(!succeeds(&lists("./new", never, &["printf", "./new\n./.wh.x\n"])));
        assert!(!succeeds(&lists("./new", never, &["sh", "-c", "echo ./new; exit 1"])));
    }
}
