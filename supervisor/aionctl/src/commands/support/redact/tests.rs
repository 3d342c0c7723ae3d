use serde_json::json;

use super::*;

/// Forty letters and more, as no name is.
const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const BASE64: &str = "dGhpcyBpcyBub3QgYSBzZWNyZXQsIGJ1dCBsb29rcyBsaWtlIG9uZTEyMw==";
const SLASHED: &str = "q83vEjRWeJCrze8S/NFZ4kKvN7xI0V/niQq83vEjRWeJCr9z";

#[test]
fn values_of_secret_keys_go_and_the_rest_of_the_line_stays() {
    for (said, kept) in [
        ("password: hunter2", "password: [redacted]"),
        ("  Password:   two words # and more", "  Password:   [redacted]"),
        ("- token: 'it''s'", "- token: '[redacted]'"),
        ("api_key=abc", "api_key=[redacted]"),
        ("export API_KEY=\"a \\\" b\" # x", "export API_KEY=\"[redacted]\" # x"),
        (r#"{"apikey":"a\"b","agent":"calm-otter"}"#, r#"{"apikey":"[redacted]","agent":"calm-otter"}"#),
        (r#"msg="{\"passwd\":\"x\\\"y\",\"n\":1}""#, r#"msg="{\"passwd\":\"[redacted]\",\"n\":1}""#),
        (
            "INFO call agent=calm-otter token=abc, tenant=acme",
            "INFO call agent=calm-otter token=[redacted], tenant=acme",
        ),
        ("curl --token abc --max 3", "curl --token [redacted] --max 3"),
        ("curl --client-secret=abc x", "curl --client-secret=[redacted] x"),
        (r#"argv=["curl", "--token", "abc", "x"]"#, r#"argv=["curl", "--token", "[redacted]", "x"]"#),
        ("x -H 'Authorization: Basic YTpi' y", "x -H 'Authorization: [redacted]' y"),
        ("Set-Cookie: a=b; c=d", "Set-Cookie: [redacted]"),
        ("headers=x-api-key=abc", "headers=x-api-key=[redacted]"),
        ("Private-Key: abc", "Private-Key: [redacted]"),
        ("SMTP_PASS=abc", "SMTP_PASS=[redacted]"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS=x-honeycomb-team=hcaik_01ab,x=y z",
            "OTEL_EXPORTER_OTLP_HEADERS=[redacted]",
        ),
        ("credentials = abc", "credentials = [redacted]"),
        ("GET /v1?access_token=abc&x=1 HTTP/1.1", "GET /v1?access_token=[redacted] HTTP/1.1"),
        ("- {name: API_TOKEN, value: abc}", "- {name: API_TOKEN, value: [redacted]}"),
        ("- {value: two words, name: API_TOKEN} # x", "- {value: [redacted], name: API_TOKEN} # x"),
        (
            r#"[{"name":"API_TOKEN","a":{"n":"}"},"value":"x"},{"name":"CITY","value":"Bern"}]"#,
            r#"[{"name":"API_TOKEN","a":{"n":"}"},"value":"[redacted]"},{"name":"CITY","value":"Bern"}]"#,
        ),
        (r#"{"value":"a \" b","name":"API_TOKEN"}"#, r#"{"value":"[redacted]","name":"API_TOKEN"}"#),
    ] {
        assert_eq!(text(said), (kept.to_owned(), 1), "{said}");
    }
}

#[test]
fn what_yaml_puts_below_a_key_goes_with_it() {
    for (said, kept) in [
        ("secret: |\n  one\n  two: x\nnext: 1\n", "secret: |\n  [redacted]\n  [redacted]\nnext: 1\n"),
        ("tokens:\n- a\n- b\nnext: 1\n", "tokens:\n- [redacted]\n- [redacted]\nnext: 1\n"),
        (
            "credentials:\n  user: x\n  key:\n    y\nn: 1\n",
            "credentials:\n  user: [redacted]\n  key:\n    [redacted]\nn: 1\n",
        ),
        ("TOKEN=a\\\nb\nNEXT=1\n", "TOKEN=[redacted]\n[redacted]\nNEXT=1\n"),
    ] {
        let (found, count) = text(said);
        assert_eq!(found, kept, "{said}");
        assert!(count >= 1, "{said}");
    }
    let two = "list:\n  - token: abc\n    name: calm-otter\n";
    assert_eq!(text(two).0, "list:\n  - token: [redacted]\n    name: calm-otter\n");
}

#[test]
fn values_over_several_lines_go_as_a_whole() {
    let block = "-----BEGIN PRIVATE KEY-----\nplanted one\n-----END PRIVATE KEY-----";
    for (said, kept) in [
        (
            "TOKEN=\"planted one\n planted two\n\nplanted three\" # x\nNEXT=1\n",
            "TOKEN=\"[redacted]\n [redacted]\n\n[redacted]\" # x\nNEXT=1\n",
        ),
        (
            "export TOKEN='planted \\'\nN=1\nTOKEN='\nplanted''s\n'\nN=2\n",
            "export TOKEN='[redacted]'\nN=1\nTOKEN='\n[redacted]\n'\nN=2\n",
        ),
        (
            "TOKEN=\"planted \\\" one\\\nplanted two\nplanted three\"\nN=1\n",
            "TOKEN=\"[redacted]\n[redacted]\n[redacted]\"\nN=1\n",
        ),
        ("TOKEN=none\\\n planted \\\n planted\nN=1\n", "TOKEN=[redacted]\n [redacted]\n [redacted]\nN=1\n"),
        ("TOKEN=\\\nplanted\nN=1\n", "TOKEN=[redacted]\n[redacted]\nN=1\n"),
        ("curl --token \\\n  planted\nN=1\n", "curl --token \\\n  [redacted]\nN=1\n"),
        (
            "a: {password: 'planted\n  planted', agent: calm-otter}\n",
            "a: {password: '[redacted]\n  [redacted]', agent: calm-otter}\n",
        ),
        (
            "TOKEN=\"planted\nplanted\" SECRET=\"planted\nplanted\"\nN=1\n",
            "TOKEN=\"[redacted]\n[redacted]\n[redacted]\"\nN=1\n",
        ),
        (
            "secret: |2-  # x\n    planted: one\n\n  planted\nnext: 1\n",
            "secret: [redacted]\n    [redacted]\n\n  [redacted]\nnext: 1\n",
        ),
        (
            "credentials:\n  key: >-\n    planted: one\n    planted\n  on: x\nn: 1\n",
            "credentials:\n  key: [redacted]\n    [redacted]\n    [redacted]\n  on: [redacted]\nn: 1\n",
        ),
        (
            "tokens:\n- |\n  planted: one\n- planted\nn: 1\n",
            "tokens:\n- [redacted]\n  [redacted]\n- [redacted]\nn: 1\n",
        ),
        (
            "list:\n  - token: |\n      planted: one\n    name: calm-otter\n",
            "list:\n  - token: |\n      [redacted]\n    name: calm-otter\n",
        ),
        (
            "env:\n  - name: API_TOKEN\n    value: planted\n  - name: CITY\n    value: Bern\n",
            "env:\n  - name: API_TOKEN\n    value: [redacted]\n  - name: CITY\n    value: Bern\n",
        ),
        (
            "env:\n  - name: \"API_TOKEN\"\n    value: |\n      planted: x\n  - name: a\n",
            "env:\n  - name: \"API_TOKEN\"\n    value: |\n      [redacted]\n  - name: a\n",
        ),
        ("DB_PASSWORD=\"x7f\nAPI_KEY=\"planted\"\nN=1\n", "DB_PASSWORD=\"[redacted]\n[redacted]\"\nN=1\n"),
        (
            "DB_PASSWORD='x7f\nA=1\nAPI_KEY='planted'\nN=1\n",
            "DB_PASSWORD='[redacted]\n[redacted]\n[redacted]'\nN=1\n",
        ),
        (
            "DB_PASSWORD=\"x7f\nAPI_KEY='planted\nSECRET=\"planted\"\nN=1\n",
            "DB_PASSWORD=\"[redacted]\n[redacted]\n[redacted]\n[redacted]\n",
        ),
        (
            "password: \"x7f\ntokens:\n  - \"planted\"\n  - planted\nn: 1\n",
            "password: \"[redacted]\n[redacted]\n  [redacted]\"\n  [redacted]\nn: 1\n",
        ),
        (
            "credentials:\n  key: \"planted\nplanted: x\n  planted\", planted\n  on: planted\nn: 1\n",
            "credentials:\n  key: [redacted]\n[redacted]\n  [redacted]\n  on: [redacted]\nn: 1\n",
        ),
        (
            "env:\n  - name: API_TOKEN # of weather\n    value: 'planted\nplanted'\n  - name: a\n    value: b\n",
            "env:\n  - name: API_TOKEN # of weather\n    value: [redacted]\n[redacted]'\n  - name: a\n    value: b\n",
        ),
        (
            "- {name: API_TOKEN, value: \"planted\n  planted\"}\nN=1\n",
            "- {name: API_TOKEN, value: \"[redacted]\n  [redacted]\"}\nN=1\n",
        ),
        (
            format!("KEY=\"{block}\"\nTLS_SECRET='{block}\nplanted'\nN=1\n").as_str(),
            "KEY=\"[redacted]\"\nTLS_SECRET='[redacted]\n[redacted]'\nN=1\n",
        ),
    ] {
        let (found, count) = text(said);
        assert_eq!(found, kept, "{said}");
        assert!(count >= 1 && !found.contains("planted"), "{said}");
        assert_eq!(text(&found), (found.clone(), 0), "{said}");
    }
    // Quotes that nobody closes do not take all that follows.
    let open = format!("TOKEN=\"a\n{}", "a line of a log\n".repeat(10_000));
    assert!(text(&open).0.ends_with("a line of a log\n"));
}

#[test]
fn what_shows_by_itself_goes() {
    for (said, kept) in [
        ("sent Bearer abc.DEF-123 to it", "sent Bearer [redacted] to it"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted] used"),
        ("X=ghp_0123456789abcdefABCDEF0123456789abcd", "X=[redacted]"),
        ("with sk-proj-abcdefghijklmnop12", "with [redacted]"),
        ("see https://user:pa%40ss@example.com/x", "see https://user:[redacted]@example.com/x"),
        ("see postgres://u:p/w@db:5432/x", "see postgres://u:[redacted]@db:5432/x"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl end", "jwt [redacted] end"),
        (format!("sum {HEX}").as_str(), "sum [redacted]"),
        (format!("dop_v1_{HEX}").as_str(), "[redacted]"),
        (
            "url: https://hooks.slack.com/services/T01234567/B01234567/aBcDeFgHiJkLmNoPqRsTuVwX",
            "url: https://hooks.slack.com/services/T01234567/B01234567/[redacted]",
        ),
        (
            "url: https://events.pagerduty.com/integration/0123456789abcdef0123456789abcdef/enqueue",
            "url: https://events.pagerduty.com/integration/[redacted]/enqueue",
        ),
        (
            "to https://x.webhook.office.com/webhookb2/0a1b2c3d-0000-4a4a-8b8b-0123456789ab",
            "to https://x.webhook.office.com/webhookb2/[redacted]",
        ),
        (format!("value={BASE64};").as_str(), "value=[redacted];"),
        (format!("({SLASHED})").as_str(), "([redacted])"),
        (format!("https://hooks.example.com/{HEX}").as_str(), "https://hooks.example.com/[redacted]"),
    ] {
        assert_eq!(text(said), (kept.to_owned(), 1), "{said}");
    }
}

#[test]
fn private_keys_go_as_blocks_also_when_they_were_cut_off() {
    let begin = "-----BEGIN EC PRIVATE KEY-----";
    let end = "-----END EC PRIVATE KEY-----";
    for (said, kept) in [
        (format!("a\n{begin}\nMHcC\nAQEE\n{end}\nb\n"), "a\n[redacted]\nb\n"),
        (format!("key: \"{begin}\\nMHcC\\n{end}\\n\" b"), "key: \"[redacted]\\n\" b"),
        (format!("a\n{begin}\nMHcC\nAQEE\nthe log goes on\n"), "a\n[redacted]\nthe log goes on\n"),
        (format!("a cut\nMHcC\nAQEE\n{end}\nb\n"), "a cut\n[redacted]\nb\n"),
    ] {
        assert_eq!(text(&said), (kept.to_owned(), 1), "{said}");
    }
    // Many beginnings and no end take one way through the text: else this would go on for hours.
    let many = format!("{begin}\nx y\n").repeat(50_000);
    assert_eq!(text(&many).1, 50_000);
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert_eq!(text(certificate), (certificate.to_owned(), 0));
}

#[test]
fn what_is_needed_to_follow_things_stays() {
    for said in [
        "agent=token-service tenant=acme id=01JD5Z0000ABCDEFGHJKMNPQRS",
        "\"name\": \"token-service\",",
        "cgroup aion/5f3e9a7c/01JD5Z0000ABCDEFGHJKMNPQRS",
        "read /var/lib/aion/agents/01JD5Z0000ABCDEFGHJKMNPQRS/journal",
        "open /var/lib/aion/secrets/token: No such file or directory",
        format!("/var/lib/aion/tools/{HEX}/tool.py").as_str(),
        "tls_key: credential:grpc.key",
        "      secret: credential:oncall-key",
        "token_file: /etc/aion/token",
        "allow: [secret:use:weather]",
        "tokens_max: 4096",
        "secret: true",
        "password:",
        "let kind = token::Kind::Open;",
        "aion_kernel_http_request_duration_seconds_bucket{le=\"0.5\"} 17",
        "see http://127.0.0.1:8010/readyz and mail@example.com",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "x86_64-unknown-linux-gnu-with-a-name-that-is-long-2",
        "=================================================",
        "Grüße, Wörter und ein Token für dich",
        r#"[{"name":"tokens","value":5},{"name":"CITY","value":"Bern"}]"#,
    ] {
        assert_eq!(text(said), (said.to_owned(), 0));
    }
}

#[test]
fn a_second_look_finds_nothing_more() {
    let said = format!(
        "token=a, b\npassword: |\n  x\nAuthorization: Bearer {BASE64}\nhttps://u:p@h\n--token x y {HEX}\n\
         {{\"cookie\": \"a\"}}\n-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\ncall token=z x\n"
    );
    let (once, count) = text(&said);
    assert!(count >= 8, "{count}: {once}");
    assert_eq!(text(&once), (once.clone(), 0));
}

#[test]
fn documents_are_redacted_by_their_keys_and_stay_documents() {
    let (found, count) = json(json!({
        "name": "token-service",
        "command": ["curl", "--token", "abc", "--password=abc", "-H", "Authorization: Bearer abc", "x"],
        "manifest": {"spec": {"env": {"CITY": "Bern", "EMPTY": ""}, "secrets": ["weather"], "tokens_max": 5}},
        "credentials": {"user": "x", "pin": 1234, "on": true, "old": null},
        "labels": {"api-key": "abc", "team": "blue"},
        "token_file": "/etc/aion/token",
        "message": "two\npassword=abc",
        "list": [{"name": "API_TOKEN", "value": "abc"}, {"name": "tokens", "value": 5}, {"name": "a", "value": "b"}],
    }));
    assert_eq!(
        found,
        json!({
            "name": "token-service",
            "command":
                ["curl", "--token", MARK, "--password=[redacted]", "-H", "Authorization: [redacted]", "x"],
            "manifest": {"spec": {"env": {"CITY": MARK, "EMPTY": ""}, "secrets": ["weather"], "tokens_max": 5}},
            "credentials": {"user": MARK, "pin": MARK, "on": true, "old": null},
            "labels": {"api-key": MARK, "team": "blue"},
            "token_file": "/etc/aion/token",
            "message": "two\npassword=[redacted]",
            "list": [{"name": "API_TOKEN", "value": MARK}, {"name": "tokens", "value": 5}, {"name": "a", "value": "b"}],
        })
    );
    assert_eq!(count, 9);
    assert_eq!(json(found.clone()), (found, 0));
}
