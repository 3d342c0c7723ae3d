//! Messages survive the socket, and no bytes make a decoder panic or allocate what is not there.

use aion_sandbox::{
    BindTarget, ExecPlan, ForkOrder, Job, Landlock, Message, NotifyRule, Outcome, Plan, Prepare, Resource,
    Rlimit, RootfsKind, Seccomp, Secret, SystemEntry, WindowSize,
};
use aion_types::{LayerName, LayerReport, LayerState};
use proptest::collection::vec;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn window() -> impl Strategy<Value = Option<WindowSize>> {
    prop::option::of(any::<(u16, u16)>().prop_map(|(rows, cols)| WindowSize { rows, cols }))
}

fn seccomp() -> impl Strategy<Value = Seccomp> {
    let rules = vec(any::<(u32, i32)>().prop_map(|(nr, errno)| NotifyRule { nr, errno }), 0..5);
    (".*", bytes(), prop::option::of(rules)).prop_map(|(profile, program, notify)| Seccomp {
        profile,
        program,
        notify,
    })
}

fn landlock() -> impl Strategy<Value = Landlock> {
    (any::<(bool, bool, bool)>(), vec(bytes(), 0..4)).prop_map(|(flags, exec_allow)| Landlock {
        restrict_exec: flags.0,
        exec_allow,
        deny_tcp: flags.1,
        allow_degraded: flags.2,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let rlimit = (prop::sample::select(Resource::ALL), any::<(u64, u64)>())
        .prop_map(|(resource, (soft, hard))| Rlimit { resource, soft, hard });
    let bind = (bytes(), any::<(bool, bool)>()).prop_map(|(path, (writable, directory))| BindTarget {
        path,
        writable,
        directory,
    });
    let secret = (".*", bytes()).prop_map(|(name, value)| Secret { name, value });
    let texts = (vec(bytes(), 0..5), vec(bytes(), 0..5), bytes(), ".*");
    let numbers = any::<(u32, u32, u64, u32, i16, u64, u32)>();
    let flags = any::<[bool; 7]>();
    let job = prop::option::of(
        any::<(u64, bool)>().prop_map(|(checkpoint_max, restore)| Job { checkpoint_max, restore }),
    );
    let lists = (vec(bind, 0..3), vec(secret, 0..3), prop::option::of(vec(rlimit, 0..5)));
    let layers = (window(), prop::option::of(landlock()), prop::option::of(seccomp()), job);
    (texts, numbers, flags, lists, layers).prop_map(|(texts, n, flags, lists, layers)| Plan {
        argv: texts.0,
        env: texts.1,
        cwd: texts.2,
        hostname: texts.3,
        uid: n.0,
        gid: n.1,
        rootfs: if flags[0] { RootfsKind::Directory } else { RootfsKind::HostSystem },
        scratch_bytes: n.2,
        scratch_inodes: n.3,
        workspace_read_only: flags[1],
        binds: lists.0,
        devices: flags[6],
        secrets: lists.1,
        tty: layers.0,
        session: flags[2],
        rlimits: lists.2,
        drop_capabilities: flags[3],
        no_new_privs: flags[4],
        landlock: layers.1,
        seccomp: layers.2,
        oom_score_adj: n.4,
        journal_limit: n.5,
        incarnation: n.6,
        door: flags[5],
        job: layers.3,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let entry = (".*", ".*").prop_map(|(name, link)| SystemEntry { name, link });
    let prepare = (vec(entry, 0..5), any::<(bool, bool, bool)>()).prop_map(
        |(system, (cgroup_namespace, mask_proc, empty_bounding_set))| Prepare {
            system,
            cgroup_namespace,
            mask_proc,
            empty_bounding_set,
        },
    );
    prop_oneof![
        plan().prop_map(|p| Message::Launch(Box::new(p))),
        (plan(), window()).prop_map(|(plan, tty)| Message::Exec(Box::new(ExecPlan { plan, tty }))),
        prepare.prop_map(Message::Prepare),
        any::<(u64, u32, bool)>().prop_map(|(namespaces, owner, cgroup)| Message::Fork(ForkOrder {
            namespaces,
            owner,
            cgroup
        })),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let states = vec![LayerState::Active, LayerState::Degraded, LayerState::Unavailable, LayerState::Off];
    let name = || prop::sample::select(LayerName::ALL);
    let layer = (name(), prop::sample::select(states), ".*").prop_map(|(name, state, detail)| LayerReport {
        name,
        state,
        detail,
    });
    prop_oneof![
        (any::<u32>(), vec(layer, 0..14), any::<[u64; 3]>())
            .prop_map(|(pid, layers, marks)| Outcome::Running { pid, layers, marks }),
        (name(), any::<i32>(), ".*").prop_map(|(layer, errno, message)| Outcome::LayerFailed {
            layer,
            errno,
            message
        }),
        any::<i32>().prop_map(|errno| Outcome::ExecFailed { errno }),
        any::<u32>().prop_map(|pid| Outcome::Forked { pid }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn outcomes_round_trip(outcome in outcome()) {
        prop_assert_eq!(Outcome::decode(&outcome.encode()), Ok(outcome));
    }

    #[test]
    fn damaged_messages_are_refused_or_are_messages(
        message in message(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.encode();
        let i = at.index(bytes.len());
        bytes[i] = byte;
        if let Ok(other) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&other.encode()), Ok(other));
        }
        let short = cut.index(bytes.len());
        prop_assert!(Message::decode(&message.encode()[..short]).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..500)) {
        let _ = Message::decode(&bytes);
        let _ = Outcome::decode(&bytes);
    }
}
