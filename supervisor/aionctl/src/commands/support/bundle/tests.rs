use std::time::Instant;

use serde_json::json;

use super::*;

fn quick(name: &str, found: Found) -> Piece {
    Piece::new(name, Limits::SMALL, std::future::ready(found))
}

fn text(text: &str) -> Found {
    Ok(Body::Text { bytes: text.as_bytes().to_vec(), cut: false })
}

fn held<'a>(parts: &'a [Part], name: &str) -> &'a Held {
    let part = parts.iter().find(|part| part.name == name).unwrap();
    part.held.as_ref().unwrap()
}

#[tokio::test]
async fn who_fails_hangs_or_panics_costs_only_its_own_part() {
    let begun = Instant::now();
    let short = Limits { time: Duration::from_millis(50), bytes: 1000 };
    let parts = collect(vec![
        quick("first", text("token=abc\n")),
        quick("fails", Err("no answer with token=abc".to_owned())),
        Piece::new("hangs", short, std::future::pending()),
        Piece::blocking("blocks", short, || {
            std::thread::sleep(Duration::from_secs(30));
            text("late")
        }),
        Piece::new("panics", short, async { panic!("on purpose") }),
        Piece::absent("absent", "there is none"),
        quick("last", Ok(Body::Json(json!({"password": "abc", "agent": "calm-otter"})))),
    ])
    .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for what hangs");
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["first", "fails", "hangs", "blocks", "panics", "absent", "last"]);
    assert_eq!(
        (held(&parts, "first").text.as_str(), held(&parts, "first").redactions),
        ("token=[redacted]\n", 1)
    );
    let document: Value = serde_json::from_str(&held(&parts, "last").text).unwrap();
    assert_eq!(document, json!({"password": "[redacted]", "agent": "calm-otter"}));
    let why = |at: usize| parts[at].held.as_ref().unwrap_err().as_str();
    assert_eq!(why(1), "no answer with token=[redacted]");
    assert_eq!((why(2), why(3)), ("it took longer than 50ms", "it took longer than 50ms"));
    assert!(why(4).contains("did not run to its end"), "{}", why(4));
    assert_eq!(why(5), "there is none");
}

#[tokio::test]
async fn of_long_text_the_end_is_kept_from_a_line_on_and_long_documents_are_left_out() {
    let small = Limits { time: Duration::from_secs(5), bytes: 12 };
    let piece = |name: &str, found: Found| Piece::new(name, small, std::future::ready(found));
    let parts = collect(vec![
        piece("text", text("one\ntwo\nthree\nfour\n")),
        piece("fits", text("one\ntwo\n")),
        piece("document", Ok(Body::Json(json!({"a": "a long text"})))),
    ])
    .await;
    let (cut, fits) = (held(&parts, "text"), held(&parts, "fits"));
    assert_eq!((cut.text.as_str(), cut.cut), ("three\nfour\n", true));
    assert_eq!((fits.text.as_str(), fits.cut), ("one\ntwo\n", false));
    assert!(parts[2].held.as_ref().unwrap_err().contains("more than 12 B"));
}

#[tokio::test]
async fn digests_of_its_own_stay() {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
    let parts = collect(vec![
        quick("digests", Ok(Body::Digests(vec![("a.yaml".to_owned(), digest.clone())]))),
        quick("text", text(&digest)),
    ])
    .await;
    assert!(held(&parts, "digests").text.contains(&digest));
    assert_eq!(held(&parts, "digests").redactions, 0);
    assert_eq!(held(&parts, "text").text, "[redacted]");
}
