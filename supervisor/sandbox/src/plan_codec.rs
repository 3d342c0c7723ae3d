//! Messages to bytes and back. Both ends are built together, so there is no version to negotiate; a first byte
//! that changes with the layout catches an init of another build.

use aion_types::{LayerName, LayerReport, LayerState};

use crate::Error;
use crate::codec::{Decoder, Encoder, Malformed};
use crate::message::{ExecPlan, ForkOrder, Message, Outcome, Prepare, SystemEntry};
use crate::plan::{
    BindTarget, Job, Landlock, NotifyRule, Plan, Resource, Rlimit, RootfsKind, Seccomp, Secret, WindowSize,
};

const LAYOUT: u8 = 3;
/// The longest message to init: arguments, environment, secrets and a filter.
pub const MAX_MESSAGE: usize = 8 << 20;

pub(crate) fn encode(message: &Message) -> Vec<u8> {
    let mut e = Encoder::default();
    e.u8(LAYOUT);
    match message {
        Message::Fork(f) => {
            e.u8(4);
            e.u64(f.namespaces);
            e.u32(f.owner);
            e.flag(f.cgroup);
        }
        Message::Prepare(p) => {
            e.u8(1);
            e.flag(p.cgroup_namespace);
            e.flag(p.mask_proc);
            e.flag(p.empty_bounding_set);
            e.list(&p.system, |e, s| {
                e.text(&s.name);
                e.text(&s.link);
            });
        }
        Message::Launch(p) => {
            e.u8(2);
            plan(&mut e, p);
        }
        Message::Exec(x) => {
            e.u8(3);
            e.option(x.tty.as_ref(), window);
            plan(&mut e, &x.plan);
        }
    }
    e.out
}

fn window(e: &mut Encoder, w: &WindowSize) {
    e.u16(w.rows);
    e.u16(w.cols);
}

fn plan(e: &mut Encoder, p: &Plan) {
    // Every field is named, so that a new one cannot be forgotten here.
    let Plan {
        argv,
        env,
        cwd,
        hostname,
        uid,
        gid,
        rootfs,
        scratch_bytes,
        scratch_inodes,
        workspace_read_only,
        binds,
        devices,
        secrets,
        tty,
        session,
        rlimits,
        drop_capabilities,
        no_new_privs,
        landlock,
        seccomp,
        oom_score_adj,
        journal_limit,
        incarnation,
        door,
        job,
    } = p;
    e.list(argv, |e, a| e.bytes(a));
    e.list(env, |e, a| e.bytes(a));
    e.bytes(cwd);
    e.text(hostname);
    e.u32(*uid);
    e.u32(*gid);
    e.flag(*rootfs == RootfsKind::Directory);
    e.u64(*scratch_bytes);
    e.u32(*scratch_inodes);
    e.flag(*workspace_read_only);
    e.list(binds, |e, b| {
        e.bytes(&b.path);
        e.flag(b.writable);
        e.flag(b.directory);
    });
    e.flag(*devices);
    e.list(secrets, |e, s| {
        e.text(&s.name);
        e.bytes(&s.value);
    });
    e.option(tty.as_ref(), window);
    e.flag(*session);
    e.option(rlimits.as_ref(), |e, all| {
        e.list(all, |e, r| {
            e.u8(r.resource as u8);
            e.u64(r.soft);
            e.u64(r.hard);
        });
    });
    e.flag(*drop_capabilities);
    e.flag(*no_new_privs);
    e.option(landlock.as_ref(), |e, l| {
        e.flag(l.restrict_exec);
        e.list(&l.exec_allow, |e, p| e.bytes(p));
        e.flag(l.deny_tcp);
        e.flag(l.allow_degraded);
    });
    e.option(seccomp.as_ref(), |e, s| {
        e.text(&s.profile);
        e.bytes(&s.program);
        e.option(s.notify.as_ref(), |e, rules| {
            e.list(rules, |e, r| {
                e.u32(r.nr);
                e.i32(r.errno);
            });
        });
    });
    e.i32(i32::from(*oom_score_adj));
    e.u64(*journal_limit);
    e.u32(*incarnation);
    e.flag(*door);
    e.option(job.as_ref(), |e, j| {
        e.u64(j.checkpoint_max);
        e.flag(j.restore);
    });
}

impl Message {
    /// Reads a message; for init.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        if d.u8()? != LAYOUT {
            return Err(Malformed("init and launcher are of different builds"));
        }
        let message = match d.u8()? {
            1 => {
                let (cgroup_namespace, mask_proc, empty_bounding_set) = (d.flag()?, d.flag()?, d.flag()?);
                let entry = |d: &mut Decoder<'_>| Ok(SystemEntry { name: d.text()?, link: d.text()? });
                Self::Prepare(Prepare {
                    cgroup_namespace,
                    mask_proc,
                    empty_bounding_set,
                    system: d.list(entry)?,
                })
            }
            2 => Self::Launch(Box::new(read_plan(&mut d)?)),
            3 => {
                let tty = d.option(read_window)?;
                Self::Exec(Box::new(ExecPlan { tty, plan: read_plan(&mut d)? }))
            }
            4 => Self::Fork(ForkOrder { namespaces: d.u64()?, owner: d.u32()?, cgroup: d.flag()? }),
            _ => return Err(Malformed("an unknown message")),
        };
        d.end()?;
        Ok(message)
    }

    /// The bytes of a message, as the host sends them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

fn read_window(d: &mut Decoder<'_>) -> Result<WindowSize, Malformed> {
    Ok(WindowSize { rows: d.u16()?, cols: d.u16()? })
}

fn read_plan(d: &mut Decoder<'_>) -> Result<Plan, Malformed> {
    Ok(Plan {
        argv: d.list(Decoder::bytes)?,
        env: d.list(Decoder::bytes)?,
        cwd: d.bytes()?,
        hostname: d.text()?,
        uid: d.u32()?,
        gid: d.u32()?,
        rootfs: if d.flag()? { RootfsKind::Directory } else { RootfsKind::HostSystem },
        scratch_bytes: d.u64()?,
        scratch_inodes: d.u32()?,
        workspace_read_only: d.flag()?,
        binds: d.list(|d| Ok(BindTarget { path: d.bytes()?, writable: d.flag()?, directory: d.flag()? }))?,
        devices: d.flag()?,
        secrets: d.list(|d| Ok(Secret { name: d.text()?, value: d.bytes()? }))?,
        tty: d.option(read_window)?,
        session: d.flag()?,
        rlimits: d.option(|d| d.list(read_rlimit))?,
        drop_capabilities: d.flag()?,
        no_new_privs: d.flag()?,
        landlock: d.option(|d| {
            Ok(Landlock {
                restrict_exec: d.flag()?,
                exec_allow: d.list(Decoder::bytes)?,
                deny_tcp: d.flag()?,
                allow_degraded: d.flag()?,
            })
        })?,
        seccomp: d.option(|d| {
            Ok(Seccomp {
                profile: d.text()?,
                program: d.bytes()?,
                notify: d.option(|d| d.list(|d| Ok(NotifyRule { nr: d.u32()?, errno: d.i32()? })))?,
            })
        })?,
        oom_score_adj: i16::try_from(d.i32()?).map_err(|_| Malformed("an absurd oom_score_adj"))?,
        journal_limit: d.u64()?,
        incarnation: d.u32()?,
        door: d.flag()?,
        job: d.option(|d| Ok(Job { checkpoint_max: d.u64()?, restore: d.flag()? }))?,
    })
}

fn read_rlimit(d: &mut Decoder<'_>) -> Result<Rlimit, Malformed> {
    let resource = Resource::from_u8(d.u8()?).ok_or(Malformed("an unknown resource"))?;
    Ok(Rlimit { resource, soft: d.u64()?, hard: d.u64()? })
}

impl Outcome {
    /// The bytes of init's answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::default();
        match self {
            Self::Running { pid, layers, marks } => {
                e.u8(1);
                e.u32(*pid);
                e.list(layers, |e, l| {
                    e.text(l.name.as_str());
                    e.text(l.state.as_str());
                    e.text(&l.detail);
                });
                marks.iter().for_each(|&m| e.u64(m));
            }
            Self::LayerFailed { layer, errno, message } => {
                e.u8(2);
                e.text(layer.as_str());
                e.i32(*errno);
                e.text(message);
            }
            Self::ExecFailed { errno } => {
                e.u8(3);
                e.i32(*errno);
            }
            Self::Forked { pid } => {
                e.u8(4);
                e.u32(*pid);
            }
        }
        e.out
    }

    /// Reads init's answer.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut d = Decoder::new(bytes);
        let outcome = match d.u8()? {
            1 => Self::Running {
                pid: d.u32()?,
                layers: d.list(read_layer)?,
                marks: [d.u64()?, d.u64()?, d.u64()?],
            },
            2 => Self::LayerFailed { layer: read_name(&mut d)?, errno: d.i32()?, message: d.text()? },
            3 => Self::ExecFailed { errno: d.i32()? },
            4 => Self::Forked { pid: d.u32()? },
            _ => return Err(Malformed("an unknown answer")),
        };
        d.end()?;
        Ok(outcome)
    }
}

pub(crate) fn decode_outcome(bytes: &[u8]) -> Result<Outcome, Error> {
    Outcome::decode(bytes).map_err(|Malformed(reason)| Error::Protocol { reason })
}

fn read_name(d: &mut Decoder<'_>) -> Result<LayerName, Malformed> {
    d.text()?.parse().map_err(|()| Malformed("an unknown layer"))
}

fn read_layer(d: &mut Decoder<'_>) -> Result<LayerReport, Malformed> {
    let name = read_name(d)?;
    let state = d.text()?;
    let states = [LayerState::Active, LayerState::Degraded, LayerState::Unavailable, LayerState::Off];
    let state = states.into_iter().find(|s| s.as_str() == state).ok_or(Malformed("an unknown state"))?;
    Ok(LayerReport { name, state, detail: d.text()? })
}
