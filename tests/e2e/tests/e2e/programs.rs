//! Programs of every kind run, and do useful work.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aion_e2e::Verdict;

use crate::Shared;
use crate::agent::{pair, path, run, workspace};

pub(crate) fn python(shared: &Shared) {
    let dir = workspace();
    std::fs::write(dir.path().join("data.csv"), "name,amount\na,3\nb,4\na,5\n").unwrap();
    let program = "import csv, json, collections, sqlite3, threading, subprocess, tempfile, hashlib\n\
        t = collections.Counter()\nfor row in csv.DictReader(open('data.csv')): t[row['name']] += int(row['amount'])\n\
        db = sqlite3.connect('out.db'); db.execute('create table t (n, a)'); db.executemany('insert into t values (?, ?)', t.items()); db.commit()\n\
        w = [threading.Thread(target=lambda: hashlib.sha256(b'x' * 100000).digest()) for _ in range(8)]\n\
        [x.start() for x in w]; [x.join() for x in w]\n\
        json.dump(t, open('out.json', 'w'), sort_keys=True)\nprint(subprocess.run(['wc', '-l', 'data.csv'], capture_output=True, text=True).stdout.split()[0])";
    let out = run_python(shared, &dir, program);
    assert_eq!(out, "4\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("out.json")).unwrap(), r#"{"a": 8, "b": 4}"#);
}

fn run_python(shared: &Shared, dir: &tempfile::TempDir, program: &str) -> String {
    crate::agent::python(pair(shared), &["--workspace", path(dir)], program).ok().text()
}

pub(crate) fn node(shared: &Shared) -> Verdict {
    if !Path::new("/usr/bin/node").exists() {
        return Verdict::Skipped("there is no /usr/bin/node".to_owned());
    }
    let dir = workspace();
    let program = "const fs = require('fs'); fs.writeFileSync('out', 'x'.repeat(5)); \
        new Promise(r => setTimeout(r, 20)).then(() => { console.log(fs.readFileSync('out', 'utf8').length, process.cwd()); process.exit(6) })";
    // Node reserves much and uses little.
    let done =
        run(pair(shared), &["--workspace", path(&dir)], &["/usr/bin/node", "-e", program]).done().expect(6);
    assert_eq!(done.text(), "5 /workspace\n");
    Verdict::Passed
}

pub(crate) fn a_static_binary(shared: &Shared) -> Verdict {
    if !cfg!(target_arch = "x86_64") {
        return Verdict::Skipped("the program is one for x86-64".to_owned());
    }
    let dir = workspace();
    let file = dir.path().join("static");
    std::fs::write(&file, elf(b"no libc here\n", 7)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = run(pair(shared), &["--workspace", path(&dir)], &["/workspace/static"]).done().expect(7);
    assert_eq!(done.text(), "no libc here\n");
    Verdict::Passed
}

/// The smallest program there is: it writes a text and ends with a code.
fn elf(text: &[u8], code: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let len = u32::try_from(text.len()).unwrap().to_le_bytes();
    let mut program = vec![0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0]; // mov eax, 1 (write); mov edi, 1
    program.extend([0x48, 0x8d, 0x35, 19, 0, 0, 0]); // lea rsi, [rip + 19]
    program.push(0xba); // mov edx, len
    program.extend(len);
    program.extend([0x0f, 0x05]); // syscall
    program.extend([0xb8, 60, 0, 0, 0, 0xbf, code, 0, 0, 0, 0x0f, 0x05]); // exit(code)
    program.extend(text);
    let size = HEADERS + u64::try_from(program.len()).unwrap();
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes()); // an executable for x86-64
    }
    file.extend(1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for half in [1u32, 5] {
        file.extend(half.to_le_bytes()); // load, readable and executable
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(program);
    file
}

pub(crate) fn a_script(shared: &Shared) {
    let dir = workspace();
    let file = dir.path().join("script");
    std::fs::write(&file, "#!/bin/sh\necho \"script $1\"\nexit 9\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    let done = run(pair(shared), &["--workspace", path(&dir)], &["./script", "one"]).done().expect(9);
    assert_eq!(done.text(), "script one\n");
    // git is what agents use most.
    let done = run(
        pair(shared),
        &["--workspace", path(&dir)],
        &["sh", "-c", "git init -q . && git add script && git status -s"],
    );
    let done = done.done();
    assert!(
        done.code == 0 && done.text().contains("A  script") || done.err.contains("not found"),
        "{} {}",
        done.text(),
        done.err
    );
}
