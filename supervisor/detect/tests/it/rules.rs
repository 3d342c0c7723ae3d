//! What each kind of rule finds, and what it does not.

use aion_detect::{Beacon, Deviation, Exception, FieldType, Op, Rate, SAMPLE, Step, When};
use serde_json::{Value, json};

use crate::stream::{S, Stream, T0, kinds, rule, test};

#[test]
fn so_many_within_the_window_are_found_once_and_told_with_their_evidence() {
    let mut stream =
        Stream::new(vec![rule("forks", 5, When::Count { of: kinds(&["proc.fork"]), at_least: 10 })]);
    for n in 0..40 {
        stream.tell(T0 + n * S / 10, "proc.fork", Value::Null);
    }
    assert_eq!(stream.findings.len(), 1, "then it is quiet for a minute");
    let found = &stream.findings[0];
    assert_eq!((found.value, found.first_seq, found.seq, found.agent.as_str()), (10, 1, 10, "a"));
    for n in 0..10 {
        stream.tell(T0 + 70 * S + n, "proc.fork", Value::Null);
    }
    assert_eq!(stream.findings.len(), 2);
    assert_eq!(stream.findings[1].suppressed, 3, "what was kept back is told");
    let status = &stream.engine.status()[0];
    assert_eq!((status.fired, status.suppressed), (2, 3));
}

#[test]
fn agents_are_counted_apart_and_slow_ones_are_not_found() {
    let mut stream =
        Stream::new(vec![rule("forks", 5, When::Count { of: kinds(&["proc.fork"]), at_least: 4 })]);
    for n in 0..3 {
        for agent in ["a", "b"] {
            stream.tell_of(agent, T0 + n, "proc.fork", "allowed", Value::Null);
        }
    }
    for n in 0..50 {
        stream.tell_of("c", T0 + n * 2 * S, "proc.fork", "allowed", Value::Null);
    }
    assert!(stream.findings.is_empty());
}

#[test]
fn tests_of_fields_and_exceptions_decide_what_counts() {
    let mut of = kinds(&["proc.exec"]);
    of.tests = vec![
        test("comm", FieldType::Text, Op::In(vec!["sh".to_owned()])),
        test("stdin_socket", FieldType::Flag, Op::Is(true)),
        test("argv", FieldType::Text, Op::Contains(vec!["-i".to_owned()])),
    ];
    let mut shell = rule("shell", 10, When::Count { of, at_least: 1 });
    shell.exceptions = vec![Exception { agents: vec!["ops-*".to_owned()], ..Exception::default() }];
    let mut stream = Stream::new(vec![shell]);
    let exec = |comm: &str, socket: bool, argv: &str| json!({"comm": comm, "stdin_socket": socket, "argv": ["sh", argv]});
    assert_eq!(stream.tell(T0, "proc.exec", exec("sh", false, "-i")), 0);
    assert_eq!(stream.tell(T0, "proc.exec", exec("cat", true, "-i")), 0);
    assert_eq!(stream.tell(T0, "proc.exec", exec("sh", true, "-c")), 0);
    assert_eq!(stream.tell_of("ops-1", T0, "proc.exec", "allowed", exec("sh", true, "-i")), 0);
    assert_eq!(stream.tell(T0, "proc.exec", exec("sh", true, "-i")), 1);
}

#[test]
fn different_values_and_sums() {
    let mut denied = kinds(&["sys.denied"]);
    denied.tests = vec![test("verdict", FieldType::Text, Op::In(vec!["denied".to_owned()]))];
    let mut stream = Stream::new(vec![
        rule("probing", 60, When::Distinct { of: denied.clone(), field: "syscall".to_owned(), at_least: 3 }),
        rule("burst", 10, When::Sum { of: denied, field: "times".to_owned(), at_least: 500 }),
    ]);
    let mut call = |time, name: &str, count: u64| {
        stream.tell_of("a", T0 + time * S, "sys.denied", "denied", json!({"syscall": name, "count": count}))
    };
    assert_eq!(call(0, "mount", 1) + call(1, "mount", 5) + call(2, "bpf", 1) + call(3, "bpf", 1), 0);
    assert_eq!(call(4, "setns", 1), 1, "the third kind of call");
    assert_eq!(call(20, "mount", 499), 0);
    assert_eq!(call(21, "mount", 1), 1);
    assert_eq!(stream.findings[1].rule.name, "burst");
    assert_eq!(stream.findings[1].value, 500);
}

#[test]
fn a_sequence_wants_its_order_its_key_and_its_time() {
    let step = |kind: &str, key: &str| Step { of: kinds(&[kind]), key: Some(key.to_owned()) };
    let steps = vec![step("file.open_write", "path"), step("proc.exec", "file")];
    let mut stream = Stream::new(vec![rule("dropped", 30, When::Sequence(steps))]);
    let exec = |path: &str| json!({"file": path});
    let write = |path: &str| json!({"path": path});
    assert_eq!(stream.tell(T0, "proc.exec", exec("/tmp/x")), 0, "executed before it was written");
    assert_eq!(stream.tell(T0 + S, "file.open_write", write("/tmp/x")), 0);
    assert_eq!(stream.tell(T0 + 2 * S, "proc.exec", exec("/tmp/y")), 0, "another file");
    assert_eq!(stream.tell(T0 + 40 * S, "proc.exec", exec("/tmp/x")), 0, "too late");
    stream.tell(T0 + 50 * S, "file.open_write", write("/tmp/x"));
    assert_eq!(stream.tell(T0 + 51 * S, "proc.exec", exec("/tmp/x")), 1);
    assert_eq!(stream.findings[0].first_ns, T0 + 50 * S);
}

#[test]
fn beats_are_told_apart_by_whom_they_go_to() {
    let beacon = Beacon {
        of: kinds(&["net.connect"]),
        by: vec!["addr".to_owned(), "port".to_owned()],
        count: 6,
        jitter_percent: 10,
        min_ns: 2 * S,
    };
    let mut stream = Stream::new(vec![rule("beacon", 600, When::Beacon(beacon))]);
    let to = |addr: &str| json!({"addr": addr, "port": 443});
    for n in 0..6 {
        // Every ten seconds, but to another host each time.
        stream.tell(T0 + n * 10 * S, "net.connect", to(&format!("192.0.2.{n}")));
    }
    assert!(stream.findings.is_empty());
    for n in 0..6 {
        stream.tell(T0 + (100 + n * 10) * S, "net.connect", to("192.0.2.99"));
    }
    assert_eq!(stream.findings.len(), 1);
}

#[test]
fn far_above_habit_is_found() {
    let of = kinds(Rate::Forks.source().0);
    let deviation =
        Deviation { rate: Rate::Forks, of, every_ns: 10 * S, sigma: 6, at_least: 20, factor: 1, warm_up: 6 };
    let mut stream = Stream::new(vec![rule("forks-odd", 60, When::Deviation(deviation))]);
    for interval in 0..10 {
        for n in 0..5 {
            stream.tell(T0 + interval * 10 * S + n, "proc.fork", Value::Null);
        }
    }
    assert!(stream.findings.is_empty());
    for n in 0..100 {
        stream.tell(T0 + 100 * S + n, "proc.fork", Value::Null);
    }
    assert_eq!(stream.findings.len(), 1);
    assert!(stream.findings[0].value >= 20);
}

#[test]
fn new_sequences_of_system_calls_count_once_enough_was_learned() {
    let mut of = kinds(&[SAMPLE]);
    of.tests = vec![test("learned_grams", FieldType::Number, Op::AtLeast(1000))];
    let sum = When::Sum { of, field: "novel_grams".to_owned(), at_least: 50 };
    let mut stream = Stream::new(vec![rule("novel", 60, sum)]);
    let sample = |learned: u64, novel: u64| json!({"learned_grams": learned, "novel_grams": novel});
    assert_eq!(stream.tell(T0, SAMPLE, sample(0, 900)), 0, "all of it is new at first");
    assert_eq!(stream.tell(T0 + 10 * S, SAMPLE, sample(5000, 30)), 0);
    assert_eq!(stream.tell(T0 + 80 * S, SAMPLE, sample(6000, 30)), 0, "too late");
    assert_eq!(stream.tell(T0 + 90 * S, SAMPLE, sample(7000, 30)), 1);
    assert_eq!(stream.findings[0].value, 60);
}

#[test]
fn who_looks_at_sequences_is_known() {
    let sample = |field: Option<&str>| {
        let mut of = kinds(&[SAMPLE]);
        of.tests = field.map(|field| test(field, FieldType::Number, Op::AtLeast(1))).into_iter().collect();
        of
    };
    let sum = |field: &str| When::Sum { of: sample(None), field: field.to_owned(), at_least: 1 };
    let of = kinds(Rate::NovelGrams.source().0);
    let deviation = Deviation {
        rate: Rate::NovelGrams,
        of,
        every_ns: 10 * S,
        sigma: 6,
        factor: 1,
        at_least: 20,
        warm_up: 6,
    };
    let steps = [None, Some("unkept_grams")].map(|field| Step { of: sample(field), key: None });
    let keyed = [None, None].map(|field| Step { of: sample(field), key: Some("syscall_grams".to_owned()) });
    for when in [
        sum("novel_grams"),
        When::Deviation(deviation),
        When::Count { of: sample(Some("learned_grams")), at_least: 1 },
        When::Sequence(steps.to_vec()),
        When::Sequence(keyed.to_vec()),
    ] {
        let rests = rule("grams", 60, when);
        assert!(rests.rests_on_grams() && rests.wants_grams() && rests.wants_samples(), "{rests:?}");
        assert!(!aion_detect::Rule { enabled: false, ..rests }.wants_grams());
    }
    let mut other = rule("bytes", 60, sum("bytes_out"));
    assert!(!other.rests_on_grams() && !other.wants_grams());
    // What is excepted by it does not rest on it.
    let tests = vec![test("novel_grams", FieldType::Number, Op::AtMost(3))];
    other.exceptions = vec![Exception { tests, ..Exception::default() }];
    assert!(!other.rests_on_grams() && other.wants_grams());
}

#[test]
fn who_looks_at_deleted_programs_is_known() {
    let mut of = kinds(&[SAMPLE]);
    of.tests = vec![test("deleted_programs", FieldType::Number, Op::AtLeast(1))];
    let tests = of.tests.clone();
    let looks = rule("deleted", 60, When::Count { of, at_least: 1 });
    assert!(looks.wants_deleted_programs() && !looks.wants_grams());
    assert!(!aion_detect::Rule { enabled: false, ..looks }.wants_deleted_programs());
    let mut other = rule("bytes", 60, When::Count { of: kinds(&[SAMPLE]), at_least: 1 });
    assert!(!other.wants_deleted_programs());
    other.exceptions = vec![Exception { tests, ..Exception::default() }];
    assert!(other.wants_deleted_programs());
}

#[test]
fn a_rule_that_is_off_finds_nothing() {
    let mut off = rule("off", 5, When::Count { of: kinds(&["proc.fork"]), at_least: 1 });
    off.enabled = false;
    let mut stream = Stream::new(vec![off]);
    assert_eq!(stream.tell(T0, "proc.fork", Value::Null), 0);
    assert!(!stream.engine.wants(aion_detect::KindId::parse("proc.fork").unwrap()));
}

#[test]
fn rules_that_stay_keep_what_they_remember() {
    let forks = |at_least| rule("forks", 60, When::Count { of: kinds(&["proc.fork"]), at_least });
    let execs = rule("execs", 60, When::Count { of: kinds(&["proc.exec"]), at_least: 2 });
    let mut stream = Stream::new(vec![forks(3), execs.clone()]);
    stream.tell(T0, "proc.fork", Value::Null);
    stream.tell(T0, "proc.exec", Value::Null);
    stream.engine.replace(vec![execs, forks(2)]);
    assert_eq!(stream.tell(T0 + 1, "proc.fork", Value::Null), 0, "it was changed, so it begins anew");
    assert_eq!(stream.tell(T0 + 1, "proc.exec", Value::Null), 1, "it is as before");
    assert_eq!(stream.engine.status()[0].fired, 1);
}
