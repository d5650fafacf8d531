//! Options as people may see them: values that may be secrets are left out.
//!
//! Pure. Secrets have a way of their own (docs/secrets.md), and are in no option. Some write them there all the same, and what a
//! status shows is copied into reports.

use api::options::MountOptions;

/// What stands for a value that is not shown.
const HIDDEN: &str = "***";

/// Parts of the names of options that have secrets as values.
const TELLING: [&str; 8] = ["pass", "secret", "token", "key", "cred", "auth", "sas", "cookie"];

/// The options with `***` for each value that may be a secret: by its name, or as part of a URL.
pub fn without_secrets(options: &MountOptions) -> MountOptions {
    let mut shown = MountOptions::default();
    for option in options.iter() {
        let mut option = option.clone();
        let name = option.name.to_ascii_lowercase();
        let names_one = TELLING.iter().any(|part| name.contains(part));
        let holds_one = |value: &String| value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        // A path is none: the file that it names is not shown.
        let is_path = |value: &String| value.starts_with('/');
        option.value = option.value.map(|value| {
            let hidden = names_one && !is_path(&value) || holds_one(&value);
            if hidden { HIDDEN.to_owned() } else { value }
        });
        shown.push(option);
    }
    shown
}

/// A source with `***` for the password and the query of a URL.
pub fn source_without_secrets(source: &str) -> String {
    let Some((scheme, rest)) = source.split_once("://") else { return source.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = authority
        .rsplit_once('@')
        .and_then(|(user, host)| {
            let (name, _) = user.split_once(':')?;
            Some(format!("{name}:{HIDDEN}@{host}"))
        })
        .unwrap_or_else(|| authority.to_owned());
    match path.split_once('?') {
        Some((path, _)) => format!("{scheme}://{authority}{path}?{HIDDEN}"),
        None => format!("{scheme}://{authority}{path}"),
    }
}

/// What a helper says, without what its volume's source has of secrets, however often it repeats that.
pub fn words_without_secrets_of(source: &str, words: &str) -> String {
    let shown = source_without_secrets(source);
    if shown == source { words.to_owned() } else { words.replace(source, &shown) }
}

/// A line of anybody's with `***` for what may be a secret in it: the value behind a telling name and `=` or `:`, and what a URL has of them.
pub fn line_without_secrets(line: &str) -> String {
    let urls = line.split_inclusive(char::is_whitespace).map(|word| match word.split_once("://") {
        Some(_) => source_without_secrets(word.trim_end()) + &word[word.trim_end().len()..],
        None => word.to_owned(),
    });
    let line: String = urls.collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let between = ['"', '\'', ' '];
    let (mut shown, mut rest) = (String::with_capacity(line.len()), line.as_str());
    while let Some(start) = rest.find(is_word) {
        let length = rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start);
        let (before, behind) = rest.split_at(start + length);
        shown.push_str(before);
        rest = behind;
        let name = before[start..].to_ascii_lowercase();
        let sign = behind.trim_start_matches(between);
        let tells =
            TELLING.iter().any(|part| name.contains(part)) && sign.starts_with(['=', ':']) && !sign.starts_with("://");
        let value = sign.get(1..).unwrap_or_default().trim_start_matches(between);
        // A path is none, as in options.
        if !tells || value.is_empty() || value.starts_with('/') {
            continue;
        }
        // `Authorization: Bearer x` is a value of two words.
        let ends = |c: char| "\"',;&".contains(c) || c.is_whitespace() && sign.starts_with('=');
        shown.push_str(&behind[..behind.len() - value.len()]);
        shown.push_str(HIDDEN);
        rest = &value[value.find(ends).unwrap_or(value.len())..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_left_out_and_the_rest_stays() {
        let shown = |options: &str| without_secrets(&MountOptions::parse(options).unwrap()).to_string();
        assert_eq!(shown("ro,port=22,IdentityFile=/k,uid=5"), "ro,port=22,IdentityFile=/k,uid=5");
        assert_eq!(shown("password=hunter2,ro"), "password=***,ro");
        assert_eq!(shown("Secret_Access_Key=abc,passwd_file=/p"), "Secret_Access_Key=***,passwd_file=/p");
        assert_eq!(shown("proxy=http://me:pw@host/,url=http://host/"), "proxy=***,url=http://host/");
    }

    #[test]
    fn a_source_is_shown_without_its_password() {
        for (source, shown) in [
            ("https://me:p@ss@host:8080/a@b", "https://me:***@host:8080/a@b"),
            ("https://host/me:x@y", "https://host/me:x@y"),
            ("user@host:/dir", "user@host:/dir"),
            ("ftp://me@host", "ftp://me@host"),
            ("ftp://me:pw@host?x", "ftp://me:***@host?***"),
            ("https://host/c?sig=abc", "https://host/c?***"),
            ("what?is=this", "what?is=this"),
            ("bucket:/path", "bucket:/path"),
        ] {
            assert_eq!(source_without_secrets(source), shown);
        }
    }

    #[test]
    fn a_line_is_shown_without_what_may_be_a_secret() {
        for (line, shown) in [
            ("connected to host:/x as me", "connected to host:/x as me"),
            ("password=hunter2 and more", "password=*** and more"),
            (r#"{"api_key": "abc def", "n": 7}"#, r#"{"api_key": "***", "n": 7}"#),
            ("Authorization: Bearer abc.def", "Authorization: ***"),
            ("opts: token = abc,ro", "opts: token = ***,ro"),
            ("passwd_file=/run/passwd -o ro", "passwd_file=/run/passwd -o ro"),
            ("GET https://me:pw@host/x?sig=1 failed", "GET https://me:***@host/x?*** failed"),
            ("the key is wrong", "the key is wrong"),
            ("password:", "password:"),
            ("übung secret=ü", "übung secret=***"),
        ] {
            assert_eq!(line_without_secrets(line), shown);
        }
    }
}
