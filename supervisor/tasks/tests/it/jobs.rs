//! What the process of a job leaves behind, and what becomes of its task.

use std::fs::File;
use std::time::Duration;

use aion_agent_journal::{Kind, NoteAbout, PlainFile, TaskNote, Writer};
use aion_api_proto::v1 as api;
use aion_tasks::{JobEnd, Known, Place};

use crate::world::{World, known, spec, tenant};

/// A job's process that has left these notes, and ended well.
async fn ended(notes: &[(NoteAbout, &str)]) -> (World, api::Task) {
    let (world, place, _folder) = begun(notes).await;
    world.tasks.job_ended(&place, JobEnd { code: 0, lost: false, oom: false, stopped: false });
    loop {
        let task = world.get("t").await;
        if task.finished.is_some() {
            return (world, task);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A job's process that runs and has left these notes.
async fn begun(notes: &[(NoteAbout, &str)]) -> (World, Place, tempfile::TempDir) {
    let world = World::new(1, vec![Known { job: true, ..known("default", "j", 1) }]);
    let folder = tempfile::tempdir().unwrap();
    let journal =
        File::options().read(true).write(true).create_new(true).open(folder.path().join("journal")).unwrap();
    let mut journal = Writer::open(journal, PlainFile, 0, 0, 1).unwrap();
    *world.host.job_folder.lock().unwrap() = Some(folder.path().to_owned());
    world.submit(spec("j", "t")).await.unwrap();
    let place = loop {
        if let Some(place) = world.host.launched.lock().unwrap().pop() {
            break place;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    world.until("t", "running").await;
    for (about, text) in notes {
        let note = TaskNote { about: *about, text: (*text).to_owned() };
        journal.append(Kind::TaskNote, 0, 1, &note.encode()).unwrap();
    }
    journal.sync().unwrap();
    (world, place, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_stopped_has_made_room() {
    for (stopped, kind, state) in [(true, "retried", "waiting"), (false, "failed", "failed")] {
        let (world, place, _folder) = begun(&[]).await;
        world.tasks.job_ended(&place, JobEnd { code: 143, lost: false, oom: false, stopped });
        world.until("t", state).await;
        assert!(world.kinds("t").await.iter().any(|known| known == kind), "{stopped}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_cannot_be_taken_is_not_none() {
    let (_world, task) = ended(&[]).await;
    assert_eq!((task.state.as_str(), task.result_json.as_str()), ("succeeded", "null"));
    let (_world, task) = ended(&[(NoteAbout::ResultRefused, "the result is not a file")]).await;
    assert_eq!(task.state, "failed");
    let error = task.error.unwrap();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("RESULT_INVALID", "the result is not a file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_checkpoint_leaves_out_is_in_the_history() {
    let (world, task) =
        ended(&[(NoteAbout::EntriesSkipped, "1 entries are neither files nor folders: cur")]).await;
    assert_eq!(task.state, "succeeded");
    let request = api::TaskHistoryRequest { task: "t".into(), page_size: 1000, after_seq: 0 };
    let history = world.tasks.history(&tenant("default"), request).await.unwrap().events;
    let noted: Vec<_> = history.iter().filter(|event| event.kind == "noted").collect();
    assert_eq!(noted.len(), 1, "{history:?}");
    assert!(noted[0].detail_json.contains("neither files nor folders: cur"), "{:?}", noted[0]);
}
