//! Sequences of system calls: looked at once somebody asks, and what is known of an agent goes on with its next launch.

use aion_launcher_proto::v1::{self, request::Op, response::Result as Answer};

use crate::client::{Client, until};
use crate::daemon::Daemon;
use crate::fixtures::sh;

fn grams(client: &mut Client, id: &str) -> Option<v1::Grams> {
    match client.call(Op::Stats(v1::Stats { id: id.to_owned(), grams: true, ..Default::default() })).unwrap()
    {
        Answer::Stats(stats) => stats.grams,
        other => panic!("not stats: {other:?}"),
    }
}

#[test]
fn what_was_learned_goes_on_with_the_next_launch_and_goes_with_the_agent() {
    let Some(daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let count = v1::AuditMode::Count.into();
    let asked = v1::Launch { audit: count, ..sh("while :; do [ -e /none ]; done") };
    client.launch(&asked).unwrap();
    assert!(client.stats(&asked.id).grams.is_none(), "nobody asked");
    let begun = grams(&mut client, &asked.id).unwrap();
    until("it is looked at", || grams(&mut client, &asked.id).unwrap().looked > begun.looked + 1000);
    let learned = grams(&mut client, &asked.id).unwrap();
    assert!(learned.known > 0 && learned.known < learned.looked && learned.unkept == 0, "{learned:?}");
    client.kill(&asked.id).unwrap();
    client.wait(&asked.id);
    let file = daemon.state().join("agents").join(&asked.id).join("grams");
    assert!(file.is_file());

    client.launch(&v1::Launch { incarnation: 1, ..asked.clone() }).unwrap();
    let again = grams(&mut client, &asked.id).unwrap();
    assert!(again.looked >= learned.looked && again.known >= learned.known, "{learned:?} {again:?}");

    let quiet = sh("sleep 300");
    client.launch(&quiet).unwrap();
    assert!(grams(&mut client, &quiet.id).is_none(), "its calls are not counted");
    client.kill(&quiet.id).unwrap();

    client.kill(&asked.id).unwrap();
    client.wait(&asked.id);
    client.remove(&asked.id).unwrap();
    assert!(!file.exists());
}

#[test]
fn what_was_learned_is_written_down_when_the_launcher_stops() {
    let Some(mut daemon) = Daemon::start(&[]) else { return };
    let mut client = daemon.client();
    let count = v1::AuditMode::Count.into();
    let asked = v1::Launch { audit: count, ..sh("while :; do [ -e /none ]; done") };
    client.launch(&asked).unwrap();
    until("it is looked at", || grams(&mut client, &asked.id).is_some_and(|grams| grams.looked > 1000));
    let learned = grams(&mut client, &asked.id).unwrap();
    let file = daemon.state().join("agents").join(&asked.id).join("grams");
    assert!(!file.exists(), "it runs");
    drop(client);
    daemon.stop();
    assert!(file.is_file());
    daemon.again();
    let again = grams(&mut daemon.client(), &asked.id).unwrap();
    assert!(again.looked > learned.looked && again.known >= learned.known, "{learned:?} {again:?}");
}
