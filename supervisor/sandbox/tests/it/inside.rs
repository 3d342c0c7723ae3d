//! What an agent sees around it.

use crate::harness::{Home, sh, sh_text, skip};

#[test]
fn it_runs() {
    if skip() {
        return;
    }
    let home = Home::new();
    let seen = home.run(&sh("echo hello; echo bad >&2; exit 3"));
    println!("{seen:?}");
    assert_eq!((seen.text().as_str(), seen.errors().as_str()), ("hello\n", "bad\n"));
    assert_eq!((seen.exit.unwrap().code, seen.ended.code), (3, 3));
}

#[test]
fn look() {
    println!(
        "{}",
        sh_text(
            "id; ls -la / /dev /etc /run /tmp /workspace; cat /proc/self/mountinfo; cat /proc/self/status | grep -E 'Cap|NoNew|Seccomp'; ps ax; ls -la /proc/self/fd; cat /proc/self/cgroup; ulimit -a; cat /proc/self/oom_score_adj; cat /proc/keys; hostname; cat /etc/hostname; touch /workspace/x /tmp/x; ls -la /workspace; cat /proc/1/maps; ls -la /proc/1/"
        )
    );
}
