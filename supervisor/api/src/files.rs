//! Files of running agents, by way of the launcher.

use std::fs::File;

use aion_kernel::{FileAnswer, FileAsk, FileInfo, FileUse};
use aion_launcher_client::Error;
use aion_launcher_proto::v1;
use aion_syscall::{Reason, Refusal};
use aion_types::ErrorCode;

use crate::core::Core;
use crate::problem::Problem;

impl Core {
    pub(crate) async fn file(&self, id: String, path: String, ask: FileAsk) -> Result<FileAnswer, Refusal> {
        let path = path.into_bytes();
        let done = match ask {
            FileAsk::Open { what_for } => self.open_file(id, path, what_for).await,
            FileAsk::Put { part, keep } => {
                let put = v1::PutFile { id, path, part, keep };
                self.launcher.put_file(put).await.map(|()| FileAnswer::Done)
            }
            FileAsk::Stat => self
                .launcher
                .stat_file(v1::StatFile { id, path })
                .await
                .map(|found| FileAnswer::Info(info(found))),
            FileAsk::List { after, limit } => {
                let list = v1::ListFolder { id, path, after, limit };
                self.launcher.list_folder(list).await.map(|page| {
                    let next = page.more.then_some(page.next);
                    FileAnswer::Page(page.entries.into_iter().map(info).collect(), next)
                })
            }
        };
        done.map_err(refusal)
    }

    async fn open_file(&self, id: String, path: Vec<u8>, what_for: FileUse) -> Result<FileAnswer, Error> {
        let (what_for, part) = match what_for {
            FileUse::Read => (v1::FileUse::Read, String::new()),
            FileUse::Write => (v1::FileUse::Write, String::new()),
            FileUse::Append => (v1::FileUse::Append, String::new()),
            FileUse::New => (v1::FileUse::New, String::new()),
            FileUse::Part(part) => (v1::FileUse::Part, part),
        };
        let open = v1::OpenFile { id, path, r#use: what_for.into(), part };
        let (found, fd) = self.launcher.open_file(open).await?;
        Ok(FileAnswer::Opened(info(found), File::from(fd)))
    }
}

fn info(found: v1::FileInfo) -> FileInfo {
    let v1::FileInfo { name, kind, size, modified_ns, mode, target } = found;
    FileInfo { name, kind, size, modified_ns, mode, target }
}

fn refusal(error: Error) -> Refusal {
    let problem = Problem::from(error);
    let code = problem.code();
    let mut refusal = Refusal::from(problem);
    let (reason, field, hint) = match code {
        // The launcher's fields are the call's params.
        ErrorCode::InvalidField => (Reason::Invalid, format!("params.{}", refusal.field), ""),
        ErrorCode::FileNotFound => {
            (Reason::NotFound, "params.path".to_owned(), "fs.list shows what is in a folder")
        }
        ErrorCode::FileExists => {
            (Reason::Conflict, "params.path".to_owned(), "choose another name, or another mode")
        }
        ErrorCode::FileRefused => {
            let hint = "fs.stat shows what it is; of a link, where it leads to";
            (Reason::Conflict, "params.path".to_owned(), hint)
        }
        // It may have been provisioned and never started: the launcher has not heard of it.
        ErrorCode::AgentNotRunning | ErrorCode::AgentNotFound => {
            refusal.code = ErrorCode::AgentNotRunning;
            "the agent does not run, and its files are there for as long as it runs"
                .clone_into(&mut refusal.message);
            (Reason::Conflict, "agent_id".to_owned(), "start it with aionctl start")
        }
        _ => return refusal,
    };
    refusal.reason = reason;
    refusal.at(field).hint(hint)
}
