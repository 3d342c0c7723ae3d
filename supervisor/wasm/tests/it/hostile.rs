//! What a module may and may not do, in both previews.

use std::time::{Duration, Instant};

use aion_wasm::{Dir, Failure, Limits};
use serde_json::json;

use crate::guest::{TARGETS, failure, load, result, run, runtime, tight};

#[test]
fn any_json_is_a_result() {
    for target in TARGETS {
        let module = load(target, tight());
        assert_eq!(result(&module, "echo"), json!({"do": "echo"}));
        assert_eq!(result(&module, "list"), json!([1, 2, 3]));
        assert_eq!(result(&module, "text"), json!("a \"text\""));
        assert_eq!(result(&module, "exit-0"), json!({"done": true}));
        assert_eq!(result(&module, "big")["text"].as_str().unwrap().len(), 3 << 20);
        let outcome = run(&module, "echo");
        assert!(outcome.usage.fuel > 0 && outcome.usage.memory > 0, "{:?}", outcome.usage);
    }
}

#[test]
fn what_runs_away_is_stopped_and_the_next_call_works() {
    for target in TARGETS {
        let module = load(target, tight());
        let code = |what: &str| failure(&module, what).code();
        assert_eq!(code("loop"), "fuel");
        assert_eq!(code("allocate"), "memory");
        let deep = failure(&module, "recurse");
        assert!(matches!(&deep, Failure::Trap { reason } if reason.contains("stack")), "{deep}");
        assert_eq!(code("recurse-wide"), "trap");
        assert_eq!(code("flood"), "output");
        assert_eq!(code("panic"), "trap");
        assert_eq!(code("garbage"), "output");
        assert_eq!(code("nothing"), "output");
        assert_eq!(code("many-values"), "output");
        assert_eq!(code("deep"), "output");
        // A component's exit says only that it failed.
        let expected = if target == "wasm32-wasip2" { 1 } else { 3 };
        let outcome = run(&module, "exit");
        assert_eq!(outcome.result, Err(Failure::Exit { code: expected }));
        assert_eq!(outcome.stderr, "it is broken\n");
        assert_eq!(result(&module, "echo"), json!({"do": "echo"}));
    }
}

#[test]
fn of_standard_error_the_end_is_kept() {
    for target in TARGETS {
        let outcome = run(&load(target, tight()), "flood-stderr");
        assert_eq!(outcome.result.unwrap_err().code(), "exit");
        assert_eq!(outcome.stderr.len(), 16 << 10);
        assert!(outcome.stderr.ends_with("line 99999\n"));
    }
}

#[test]
fn time_ends_what_computes_what_sleeps_and_what_reads_on() {
    let limits = Limits { fuel: u64::MAX, timeout: Duration::from_millis(100), ..tight() };
    for target in TARGETS {
        let module = load(target, limits.clone());
        for what in ["loop", "sleep", "read-on"] {
            let begun = Instant::now();
            assert_eq!(failure(&module, what), Failure::Timeout { ms: 100 }, "{what}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{what} took {:?}", begun.elapsed());
        }
    }
}

#[test]
fn nothing_is_given_that_was_not_named() {
    for target in TARGETS {
        let module = load(target, tight());
        assert_eq!(result(&module, "given"), json!({"args": 0, "env": [], "files": false}));
        let network = result(&module, "network");
        assert_eq!(network["any"], false, "{network}");
        let clocks = result(&module, "clocks");
        assert!(clocks["now"].as_u64().unwrap() > 1_700_000_000, "{clocks}");
        assert!(clocks["seeds"].as_u64().unwrap() > 1, "{clocks}");
        // Each call finds a fresh instance.
        assert_eq!((result(&module, "count"), result(&module, "count")), (json!(1), json!(1)));
    }
}

#[test]
fn folders_and_variables_that_were_named_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(data.join("word.txt"), "hello").unwrap();
    std::fs::write(folder.path().join("secret.txt"), "no").unwrap();
    std::os::unix::fs::symlink("../secret.txt", data.join("link")).unwrap();
    let limits = Limits {
        dirs: vec![
            Dir { host: data.clone(), guest: "/data".to_owned(), read_only: true },
            Dir { host: out.clone(), guest: "/out".to_owned(), read_only: false },
        ],
        env: vec![("A".to_owned(), "b".to_owned())],
        ..tight()
    };
    for target in TARGETS {
        let module = load(target, limits.clone());
        let files = json!({"read": "hello", "wrote": false, "outside": false, "second": true});
        assert_eq!(result(&module, "files"), files);
        assert!(out.join("new.txt").exists() && !data.join("new.txt").exists());
        assert_eq!(result(&module, "given")["env"], json!(["A=b"]));
        // Handles cost memory of the runner; a module gets so many.
        match run(&module, "handles").result {
            Ok(count) => assert!(count.as_u64().unwrap() <= 4096, "{count}"),
            Err(failure) => assert_eq!(failure.code(), "trap"),
        }
        std::fs::remove_file(out.join("new.txt")).unwrap();
    }
    // A tool's own files, as its working directory.
    let own = Dir { host: data, guest: ".".to_owned(), read_only: true };
    for target in TARGETS {
        let module = load(target, Limits { dirs: vec![own.clone()], ..tight() });
        assert_eq!(result(&module, "relative"), json!({"read": "hello", "passwd": false}));
    }
    let missing = Dir { host: folder.path().join("none"), guest: "/".to_owned(), read_only: true };
    let limits = Limits { dirs: vec![missing], ..tight() };
    assert!(aion_wasm::Module::load(crate::guest::guest(TARGETS[0]), limits).is_err());
}

#[test]
fn all_calls_together_have_a_limit_too() {
    let limits = Limits { max_memory: 32 << 20, total_memory: 40 << 20, ..tight() };
    let module = load(TARGETS[0], limits);
    let (a, b) = runtime().block_on(async {
        let call = || module.run(r#"{"do":"take"}"#);
        let waited = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            call().await
        };
        tokio::join!(call(), waited)
    });
    assert_eq!(a.result.unwrap(), json!(24 << 20));
    assert_eq!(b.result.unwrap_err().code(), "memory");
    assert_eq!(result(&module, "take"), json!(24 << 20));
}

#[test]
fn a_run_that_is_dropped_ends() {
    let module = load(TARGETS[0], Limits { fuel: u64::MAX, ..tight() });
    let begun = Instant::now();
    runtime().block_on(async {
        for what in ["loop", "sleep"] {
            let run = module.run(format!("{{\"do\":\"{what}\"}}"));
            assert!(tokio::time::timeout(Duration::from_millis(50), run).await.is_err());
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(result(&module, "list"), json!([1, 2, 3]));
}
