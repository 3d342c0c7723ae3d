//! What attempts aim at outside the sandbox: processes, sockets, files, keys.
//!
//! `aion-escape targets` makes them on the host and keeps them until its input ends; a control makes its
//! own. An attempt learns of them from a [`Targets`], and reads nothing into their absence.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Stop, at, sc};

/// Where the targets are, as seen from where the attempt runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Targets {
    /// A folder that the attempt may write to.
    pub(crate) workspace: String,
    /// The process that supervises the attempt's: init inside, a stand-in in a control.
    pub(crate) init: i32,
    /// As `init`, for what has to be in namespaces of its own.
    pub(crate) init_apart: i32,
    /// A bystander on the host, by its number there.
    pub(crate) bystander: i32,
    /// The folder that holds what follows, on the host.
    pub(crate) folder: String,
    /// What a readable file there holds.
    pub(crate) token: String,
    pub(crate) tcp4: u16,
    pub(crate) tcp6: u16,
    pub(crate) udp: u16,
    /// A TCP port on all of the host's addresses, and one of these that is not loopback.
    pub(crate) tcp_any: u16,
    pub(crate) address: String,
    /// An abstract Unix socket.
    pub(crate) abstract_name: String,
    /// System V key of a shared memory, a queue and a semaphore.
    pub(crate) key: i32,
    /// Name of a POSIX queue and of a POSIX shared memory.
    pub(crate) posix_name: String,
    /// Sockets and files of a running AION.
    pub(crate) aion: Vec<String>,
    /// A namespace whose parent is asked for.
    pub(crate) user_namespace: String,
    /// Descriptors beyond the three that the program was started with.
    pub(crate) inherited: Vec<i32>,
    /// It runs in a control: what the driver answers in an agent, the attempt finds out itself.
    pub(crate) control: bool,
    /// By how much everything takes longer on this machine: more than one where the processor is emulated.
    pub(crate) slow: u32,
}

impl Targets {
    /// As they are seen from inside a sandbox.
    pub(crate) fn inside() -> Self {
        Self {
            workspace: "/workspace".to_owned(),
            init: 1,
            init_apart: 1,
            bystander: i32::MAX,
            user_namespace: "/proc/self/ns/user".to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn file(&self) -> String {
        format!("{}/secret", self.folder)
    }

    pub(crate) fn socket(&self) -> String {
        format!("{}/socket", self.folder)
    }

    /// What a length of time is to be multiplied by.
    pub(crate) fn slowness(&self) -> u32 {
        self.slow.max(1)
    }

    pub(crate) fn in_workspace(&self, name: &str) -> String {
        format!("{}/{name}", self.workspace)
    }
}

/// Targets that exist as long as this does.
pub(crate) struct Made {
    pub(crate) targets: Targets,
    children: Vec<i32>,
    _listeners: (Vec<TcpListener>, UdpSocket, Vec<UnixListener>),
}

/// The environment variable that must not reach an agent.
pub(crate) const CANARY: &str = "AION_ESCAPE_CANARY";
/// The argument by which a bystander is known.
pub(crate) const BYSTANDER: &str = "aion-escape-bystander";
const ALL: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP
    | 0x80;

/// As the environment says; an agent, whose environment is its own, learns it from its targets.
pub(crate) fn slowness() -> u32 {
    if std::env::var_os("AION_IN_VM").is_some() { 8 } else { 1 }
}

impl Made {
    pub(crate) fn new(parent: &Path) -> Result<Self, Stop> {
        let unique = format!("aion-escape-{}", sys::getpid());
        let folder = parent.join(&unique);
        fs::create_dir_all(&folder).map_err(at("making the targets' folder"))?;
        let token = format!("token-{unique}");
        fs::write(folder.join("secret"), format!("{token}\n")).map_err(at("writing the secret"))?;
        let socket = UnixListener::bind(folder.join("socket")).map_err(at("binding a socket"))?;
        let name = SocketAddr::from_abstract_name(&unique).map_err(at("naming a socket"))?;
        let abstract_socket = UnixListener::bind_addr(&name).map_err(at("binding an abstract socket"))?;
        let tcp4 = TcpListener::bind("127.0.0.1:0").map_err(at("listening on 127.0.0.1"))?;
        let tcp6 = TcpListener::bind("[::1]:0").ok();
        let any = TcpListener::bind("0.0.0.0:0").map_err(at("listening on 0.0.0.0"))?;
        let udp = UdpSocket::bind("127.0.0.1:0").map_err(at("binding UDP"))?;
        let port = |listener: &TcpListener| listener.local_addr().map_or(0, |a| a.port());
        let key = 0x4000_0000 | sys::getpid();
        ipc(key, &unique);
        let bystander = bystander(0)?;
        let apart = bystander_apart()?;
        let targets = Targets {
            workspace: String::new(),
            init: bystander,
            init_apart: apart,
            bystander,
            folder: folder.to_string_lossy().into_owned(),
            token,
            tcp4: port(&tcp4),
            tcp6: tcp6.as_ref().map_or(0, port),
            udp: udp.local_addr().map_or(0, |a| a.port()),
            tcp_any: port(&any),
            address: own_address().map(|a| a.to_string()).unwrap_or_default(),
            abstract_name: unique.clone(),
            key,
            posix_name: format!("/{unique}"),
            aion: vec![folder.join("socket").to_string_lossy().into_owned()],
            user_namespace: format!("/proc/{apart}/ns/user"),
            inherited: Vec::new(),
            control: false,
            slow: slowness(),
        };
        let listeners = [Some(tcp4), tcp6, Some(any)].into_iter().flatten().collect();
        Ok(Self {
            targets,
            children: vec![bystander, apart],
            _listeners: (listeners, udp, vec![socket, abstract_socket]),
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for &child in &self.children {
            sys::end(child);
        }
        let (key, name) = (self.targets.key, sys::text(&self.targets.posix_name));
        // SAFETY: numbers and a name that outlives the calls.
        unsafe {
            libc::shmctl(libc::shmget(key, 0, 0), libc::IPC_RMID, std::ptr::null_mut());
            libc::msgctl(libc::msgget(key, 0), libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(libc::semget(key, 0, 0), 0, libc::IPC_RMID);
            libc::mq_unlink(name.as_ptr());
            libc::shm_unlink(name.as_ptr());
        }
        for name in ["secret", "socket"] {
            let _ = fs::remove_file(format!("{}/{name}", self.targets.folder));
        }
        let _ = fs::remove_dir(&self.targets.folder);
    }
}

/// System V and POSIX objects that anybody in this IPC namespace may open.
fn ipc(key: i32, unique: &str) {
    let name = sys::text(&format!("/{unique}"));
    // SAFETY: numbers and a name that outlives the calls. What fails shows in the controls.
    unsafe {
        libc::shmget(key, 4096, libc::IPC_CREAT | 0o666);
        libc::msgget(key, libc::IPC_CREAT | 0o666);
        libc::semget(key, 1, libc::IPC_CREAT | 0o666);
        libc::close(libc::mq_open(
            name.as_ptr(),
            libc::O_CREAT | libc::O_RDWR,
            0o666,
            std::ptr::null::<libc::mq_attr>(),
        ));
        libc::close(libc::shm_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o666));
    }
}

/// A process that does nothing, known by its argument, as root without anything around it.
pub(crate) fn bystander(flags: i32) -> Result<i32, Stop> {
    let pid = sys::fork(|| {
        if flags != 0 && sys::unshare(flags).is_err() {
            return;
        }
        let program = sys::text("/proc/self/exe");
        let name = sys::text(BYSTANDER);
        let argv = [name.as_ptr(), name.as_ptr(), std::ptr::null()];
        // SAFETY: both arrays end in null and outlive the call, which does not return on success.
        unsafe { libc::execv(program.as_ptr(), argv.as_ptr()) };
    })?;
    // Its arguments show when it has been executed.
    for _ in 0..2000 {
        if fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(BYSTANDER.as_bytes())) {
            return Ok(pid);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    sys::end(pid);
    Err(Stop::because("a bystander did not start"))
}

/// A bystander in namespaces of its own. Where time namespaces are missing it goes without.
fn bystander_apart() -> Result<i32, Stop> {
    bystander(ALL).or_else(|_| bystander(ALL & !0x80))
}

/// What a bystander does.
pub(crate) fn stand_by() {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

/// An address of this host that is not loopback. No packet is sent.
fn own_address() -> Option<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    probe.connect("203.0.113.1:9").ok()?;
    probe.local_addr().ok().map(|a| a.ip()).filter(|a| !a.is_loopback() && !a.is_unspecified())
}

/// Makes targets, prints them, and keeps them until the input ends.
pub(crate) fn serve(parent: &Path) -> anyhow::Result<()> {
    let made = Made::new(parent).map_err(|stop| anyhow::anyhow!("{stop}"))?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &made.targets)?;
    writeln!(out)?;
    out.flush()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    Ok(())
}

/// Descriptors beyond the standard three. Called first thing, before the program opens any.
pub(crate) fn inherited() -> Vec<i32> {
    (3..1024).filter(|&n| sc!("fcntl", libc::SYS_fcntl, n, libc::F_GETFD).is_ok()).collect()
}
