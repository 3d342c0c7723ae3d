//! Secrets that show by themselves, whatever stands before them: passwords in URLs, bearer tokens, keys of well-known services, and long
//! runs of hex or base64.
//!
//! Absolute paths stay, with the digests that are names of folders in them; so do ids and names, which are shorter or made of words.

use super::MARK;

/// How keys of well-known services begin, and how many letters follow at least.
const SERVICES: [(&str, usize); 18] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 16),
    ("sk-", 16),
    ("xoxa-", 10),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("AIza", 30),
    ("hf_", 20),
    ("npm_", 30),
    ("sk_live_", 10),
    ("AGE-SECRET-KEY-1", 20),
];
/// A shorter run is an id.
const LONG: usize = 40;
/// A shorter word behind `Bearer` is prose.
const BEARER: usize = 8;

/// The line without what shows by itself, and how many there were.
pub(super) fn line(line: &str) -> (String, u64) {
    let mut count = 0;
    let mut line = line.to_owned();
    for find in [passwords, addresses, bearers, runs] {
        let found = find(&line);
        count += u64::try_from(found.len()).unwrap_or(0);
        line = without(&line, &found);
    }
    (line, count)
}

type Places = Vec<(usize, usize)>;

fn without(line: &str, places: &[(usize, usize)]) -> String {
    let mut out = String::with_capacity(line.len());
    let mut done = 0;
    for &(from, to) in places {
        out.push_str(part(line, done, from));
        out.push_str(MARK);
        done = to;
    }
    out.push_str(part(line, done, line.len()));
    out
}

/// `scheme://user:password@host`.
fn passwords(line: &str) -> Places {
    let mut places = Places::new();
    let mut from = 0;
    while let Some(found) = part(line, from, line.len()).find("://") {
        from += found + 3;
        let rest = part(line, from, line.len());
        let end = rest.find(|c: char| c.is_whitespace() || "\"'<>`\\".contains(c)).unwrap_or(rest.len());
        if let Some((begin, at)) = password(part(rest, 0, end))
            && part(rest, begin, at) != MARK
            && begin < at
        {
            places.push((from + begin, from + at));
            from += at;
        }
    }
    places
}

/// Keys in the paths and queries of URLs, as those of webhooks.
fn addresses(line: &str) -> Places {
    let mut places = Places::new();
    let mut from = 0;
    while let Some(found) = part(line, from, line.len()).find("://") {
        from += found + 3;
        let rest = part(line, from, line.len());
        let end = rest.find(|c: char| c.is_whitespace() || "\"'<>`\\,".contains(c)).unwrap_or(rest.len());
        let Some(path) = part(rest, 0, end).find(['/', '?', '#']) else { continue };
        let mut at = from + path;
        for word in part(rest, path, end).split(['/', '?', '&', '=', '#', ':', '.']) {
            if is_key_in_url(word) {
                places.push((at, at + word.len()));
            }
            at += word.len() + 1;
        }
        from += path;
    }
    places
}

/// Ids of services are of letters and digits, and long; names in URLs are of small letters, and parted.
fn is_key_in_url(word: &str) -> bool {
    let (small, capital, digit, parted) = classes(word);
    let is_id = !parted || word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let mixed = word.len() >= 16 && digit && (small || capital) && is_id;
    mixed || (word.len() >= 20 && small && capital)
}

fn password(url: &str) -> Option<(usize, usize)> {
    let authority = part(url, 0, url.find(['/', '?', '#']).unwrap_or(url.len()));
    let colon = authority.find(':')?;
    if let Some(at) = authority.rfind('@') {
        return (colon < at).then_some((colon + 1, at));
    }
    // A password that nobody has escaped may have a slash in it; a port has none.
    let port = part(authority, colon + 1, authority.len()).bytes().all(|b| b.is_ascii_digit());
    let at = url.rfind('@').filter(|&at| at > colon && !port && !authority.starts_with('['))?;
    Some((colon + 1, at))
}

/// `Bearer TOKEN`.
fn bearers(line: &str) -> Places {
    const WORD: &str = "bearer";
    let small = line.to_ascii_lowercase();
    let mut places = Places::new();
    let mut from = 0;
    while let Some(found) = part(&small, from, small.len()).find(WORD) {
        from += found + WORD.len();
        let rest = part(line, from, line.len());
        let begin = rest.strip_prefix("%20").unwrap_or_else(|| rest.trim_start_matches([' ', '\t']));
        let length = begin.bytes().take_while(|&b| is_run(b) || b == b'.' || b == b'~').count();
        if begin.len() < rest.len() && length >= BEARER {
            let start = line.len() - begin.len();
            places.push((start, start + length));
            from = start + length;
        }
    }
    places
}

const fn is_run(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_' | b'-')
}

/// Keys of services, signed tokens, and long runs of what nobody reads.
fn runs(line: &str) -> Places {
    let bytes = line.as_bytes();
    let mut places = Places::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes.iter().skip(at).take_while(|&&b| is_run(b)).count();
        let (start, mut end) = (at, at + length);
        if length == 0 {
            at += 1;
            continue;
        }
        // After a colon two slashes are those of a URL.
        let url =
            start > 0 && bytes.get(start - 1) == Some(&b':') && part(line, start, end).starts_with("//");
        for (from, to) in pieces(line, start, end) {
            let piece = part(line, from, to);
            if piece.starts_with("eyJ") && bytes.get(to) == Some(&b'.') {
                let token = bytes.iter().skip(from).take_while(|&&b| is_run(b) || b == b'.').count();
                if token >= LONG {
                    end = from + token;
                    places.push((from, end));
                    continue;
                }
            }
            places.extend(secrets(piece, piece.starts_with('/') && !url).map(|(a, b)| (from + a, from + b)));
        }
        at = end;
    }
    places
}

/// A run is parted where an equals sign is no padding: `KEY=value`.
fn pieces(line: &str, start: usize, end: usize) -> Vec<(usize, usize)> {
    let bytes = line.as_bytes();
    let mut pieces = Vec::new();
    let mut from = start;
    for at in start..end {
        let next = bytes.get(at + 1).copied().filter(|_| at + 1 < end);
        if bytes.get(at) == Some(&b'=') && next.is_some_and(|next| next != b'=') {
            pieces.push((from, at));
            from = at + 1;
        }
    }
    pieces.push((from, end));
    pieces
}

/// What is secret of a piece; of a path nothing but keys of services.
fn secrets(piece: &str, path: bool) -> impl Iterator<Item = (usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    for name in piece.split('/') {
        if is_of_a_service(name) || (!path && name.len() >= LONG && is_random(name)) {
            found.push((at, at + name.len()));
        }
        at += name.len() + 1;
    }
    if found.is_empty() && !path && piece.len() >= LONG && is_base64_with_slashes(piece) {
        found.push((0, piece.len()));
    }
    found.into_iter()
}

fn is_of_a_service(name: &str) -> bool {
    SERVICES.iter().any(|(begin, least)| name.strip_prefix(begin).is_some_and(|rest| rest.len() >= *least))
}

/// Small letters, capitals, digits, and what parts words: names of things are made of some of them, random text of all.
fn classes(text: &str) -> (bool, bool, bool, bool) {
    let any = |class: fn(u8) -> bool| text.bytes().any(class);
    (
        any(|b| b.is_ascii_lowercase()),
        any(|b| b.is_ascii_uppercase()),
        any(|b| b.is_ascii_digit()),
        any(|b| b == b'_' || b == b'-'),
    )
}

fn is_random(text: &str) -> bool {
    let (small, capital, digit, parted) = classes(text);
    let is_hex = |run: &str| run.len() >= LONG && classes(run).2;
    let hex = text.split(|c: char| !c.is_ascii_hexdigit()).any(is_hex);
    digit && (hex || !parted || (small && capital))
}

/// A slash comes every 64 letters; a relative path has names between them that are made of fewer kinds of letters.
fn is_base64_with_slashes(piece: &str) -> bool {
    let mixed = |name: &&str| {
        let (small, capital, digit, _) = classes(name);
        name.len() >= 6 && small && capital && digit
    };
    let (_, _, _, parted) = classes(piece);
    let random: usize = piece.split('/').filter(mixed).map(str::len).sum();
    piece.contains('/') && !parted && random * 2 >= piece.len()
}

fn part(text: &str, from: usize, to: usize) -> &str {
    text.get(from..to).unwrap_or_default()
}
