//! The host: its kernel, processors and memory, what of control groups and BPF is mounted, and the room that the state has.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::bundle::{Body, Limits, Piece};

/// Where AION needs a file system of the kernel's.
const MOUNTS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/security"];
/// Of some hundred figures in meminfo.
const MEMORY: [&str; 5] = ["MemTotal", "MemFree", "MemAvailable", "SwapTotal", "SwapFree"];

/// What is told of the host.
pub(super) fn piece(state: PathBuf) -> Piece {
    Piece::blocking("host.json", Limits::SMALL, move || Ok(Body::Json(look(Path::new("/"), &state))))
}

/// Looks at the host whose root is `root`. What cannot be read is null.
fn look(root: &Path, state: &Path) -> Value {
    let kernel = |name: &str| read(&root.join("proc/sys/kernel").join(name));
    json!({
        "uname": {
            "sysname": kernel("ostype"),
            "nodename": kernel("hostname"),
            "release": kernel("osrelease"),
            "version": kernel("version"),
            "machine": std::env::consts::ARCH,
        },
        "os_release": settings(&root.join("etc/os-release")),
        "command_line": read(&root.join("proc/cmdline")),
        "uptime": read(&root.join("proc/uptime")),
        "load": read(&root.join("proc/loadavg")),
        "cpus": cpus(root),
        "memory": memory(root),
        "security_modules": read(&root.join("sys/kernel/security/lsm")),
        "cgroup_controllers": read(&root.join("sys/fs/cgroup/cgroup.controllers")),
        "own_cgroup": read(&root.join("proc/self/cgroup")),
        "mounts": mounts(root),
        "state": room(state),
    })
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `KEY=value` of a file that shells read, without its quotes.
fn settings(path: &Path) -> Value {
    let Some(text) = read(path) else { return Value::Null };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.to_owned(), Value::from(value.trim_matches(['"', '\'']))));
    Value::Object(pairs.collect())
}

fn cpus(root: &Path) -> Value {
    let text = read(&root.join("proc/cpuinfo")).unwrap_or_default();
    let field = |line: &str, key: &str| {
        line.split_once(':').filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    let count = text.lines().filter(|line| field(line, "processor").is_some()).count();
    let model = text.lines().find_map(|line| field(line, "model name"));
    json!({ "count": count, "online": read(&root.join("sys/devices/system/cpu/online")), "model": model })
}

fn memory(root: &Path) -> Value {
    let text = read(&root.join("proc/meminfo")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| MEMORY.contains(key));
    Value::Object(
        pairs.map(|(key, value)| (key.to_owned(), Value::from(value.trim()))).collect::<Map<_, _>>(),
    )
}

fn mounts(root: &Path) -> Vec<String> {
    let text = read(&root.join("proc/self/mountinfo")).unwrap_or_default();
    let there = |line: &&str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        MOUNTS.iter().any(|mount| Path::new(place).starts_with(mount))
    };
    text.lines().filter(there).map(str::to_owned).collect()
}

/// The file system that the state is on.
fn room(state: &Path) -> Value {
    match rustix::fs::statvfs(state) {
        Ok(found) => json!({
            "folder": state.display().to_string(),
            "bytes": found.f_blocks.saturating_mul(found.f_frsize),
            "bytes_available": found.f_bavail.saturating_mul(found.f_frsize),
            "inodes": found.f_files,
            "inodes_available": found.f_favail,
        }),
        Err(error) => json!({ "folder": state.display().to_string(), "error": error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_and_what_is_not_is_null() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.12.0\n");
        write("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        write(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: Fast One\n\nprocessor\t: 1\nmodel name\t: Fast One\n",
        );
        write("proc/meminfo", "MemTotal:  16 kB\nHugePages_Free: 0\n");
        write(
            "proc/self/mountinfo",
            "1 2 0:3 / /home rw - ext4 /dev/vda rw\n4 5 0:6 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
        );
        let seen = look(dir.path(), dir.path());
        assert_eq!(seen["uname"]["release"], "6.12.0");
        assert_eq!(seen["os_release"], json!({"ID": "debian", "VERSION_ID": "12"}));
        assert_eq!((&seen["cpus"]["count"], &seen["cpus"]["model"]), (&json!(2), &json!("Fast One")));
        assert_eq!(seen["memory"], json!({"MemTotal": "16 kB"}));
        assert_eq!(seen["mounts"].as_array().unwrap().len(), 1, "{seen}");
        assert_eq!(seen["security_modules"], Value::Null);
        assert!(seen["state"]["bytes_available"].is_u64(), "{seen}");
        assert!(look(dir.path(), Path::new("/no/such/folder"))["state"]["error"].is_string());
    }
}
