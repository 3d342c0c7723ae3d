//! The process of one attempt at a job: an agent of its own, made from the registered one's manifest. Its id follows from the attempt,
//! so that an attempt that is launched again after a crash of ours is the same agent, and runs once.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use aion_launcher_proto::v1 as launcher;
use aion_manifest::{AgentSpec, Overrides};
use aion_store::{AgentRecord, AgentState, Batch};
use aion_tasks::{JobLaunch, Place};
use aion_types::{AgentId, AgentName, ErrorCode};
use prost::Message as _;
use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest as _, Sha256};

use crate::clock::now_ns;
use crate::core::Core;
use crate::launch::{self, Size};
use crate::lifecycle::{self};
use crate::problem::{Outcome, Problem};
use crate::tasks::{AGENT, ATTEMPT, TASK};

/// The longest name.
const MAX_NAME: usize = 63;

/// The id of an attempt's process; none: the place is a service.
pub(crate) fn id_of(place: &Place) -> Option<AgentId> {
    let attempt = place.attempt?;
    let digest = Sha256::digest(format!("{}\0{}\0{attempt}", place.tenant, place.agent));
    let (head, _) = digest.split_first_chunk::<16>()?;
    let bits = u128::from_le_bytes(*head);
    // 48 bits of time and 80 of chance, in a ULID; here both are of the hash.
    Some(AgentId::from_parts(u64::try_from(bits >> 80).ok()?, bits & ((1 << 80) - 1)))
}

/// `NAME-EPOCH-SEQ`, cut where it would be too long.
fn name_of(place: &Place) -> Outcome<AgentName> {
    let attempt = place.attempt.map_or_else(String::new, |attempt| attempt.to_string());
    let room = MAX_NAME.saturating_sub(attempt.len() + 1);
    let base: String = place.agent.as_str().chars().take(room).collect();
    AgentName::parse(&format!("{}-{attempt}", base.trim_end_matches('-')))
        .map_err(|error| Problem::internal("an attempt has no name", &error))
}

impl Core {
    /// Starts the process of an attempt, once.
    pub(crate) async fn launch_job(self: Arc<Self>, job: JobLaunch) -> Outcome<PathBuf> {
        let Some(id) = id_of(&job.place) else {
            return Err(Problem::new(ErrorCode::Internal, "an attempt without a token"));
        };
        let tenant = job.place.tenant.clone();
        let _op = self.agents.lock(&id).await;
        if let Some(there) = self.agents.get(&tenant, &id)? {
            return match there.state {
                AgentState::Failed => Err(Problem::new(
                    ErrorCode::parse(&there.failure_code).unwrap_or(ErrorCode::Internal),
                    there.message,
                )),
                _ => Ok(self.folder_of(&id)),
            };
        }
        let registered = self.agents.find(&tenant, job.place.agent.as_str())?;
        self.still_signed(&registered)?;
        let yaml = self.store.manifest_of(&tenant, &registered.id)?.unwrap_or_default();
        let spec =
            AgentSpec::parse(yaml.as_bytes(), "agent.yml", Overrides::default(), &self.options.manifests)?;
        let judged = self.permit(&tenant, &spec)?;
        let (record, mut plan) = self.attempt(&job, &id, &spec)?;
        judged.limit_network(&mut plan);
        if let Some(limits) = &mut plan.network_limits {
            // Of all attempts together: they are one agent's.
            limits.account = registered.id.to_string();
        }
        let mut batch = Batch::new();
        batch.create_agent(&record, &plan.encode_to_vec(), "")?;
        // The registered one may have another by the time that this is judged.
        batch.made_from(&record, &yaml);
        self.agents.commit(&id, batch).await?;
        let record = self.agents.update(&tenant, &id, Batch::bookkeeping(), |record, _| {
            lifecycle::begin_start(record);
            Ok(())
        })?;
        let mut fds = vec![sealed(&job.params)?];
        if let Some(checkpoint) = &job.checkpoint {
            let file =
                checkpoint.try_clone().map_err(|error| Problem::internal("no more descriptors", &error))?;
            fds.push(OwnedFd::from(file));
        }
        match self.launch_with(&record, fds, Some(judged)).await {
            Ok(_) => Ok(self.folder_of(&id)),
            Err(problem) => {
                // What never ran leaves no trace; what may run is found again by its id.
                if problem.meta("executed") != "unknown"
                    && let Err(error) = self.remove_locked(&record, true, None).await
                {
                    tracing::warn!(agent = %id, problem = %error, "a process that did not start stays on record");
                }
                Err(problem)
            }
        }
    }

    fn attempt(
        &self,
        job: &JobLaunch,
        id: &AgentId,
        spec: &AgentSpec,
    ) -> Outcome<(AgentRecord, launcher::Launch)> {
        let place = &job.place;
        let not_served =
            || Problem::new(ErrorCode::NotServed, format!("no tasks are served by agent {}", place.agent));
        let tasks = spec.tasks.ok_or_else(not_served)?;
        let name = name_of(place)?;
        let mut plan = launch::plan(spec, &place.tenant, id, Size::new(0, 0));
        plan.name = name.to_string();
        plan.job = Some(launcher::Job {
            task_id: job.task.clone(),
            attempt: job.number,
            checkpoint_max_bytes: tasks.checkpoint.max_bytes.0,
            stdin: true,
            restore: job.checkpoint.is_some(),
        });
        if let Some(interval) = tasks.checkpoint.interval_ms {
            plan.env.push(format!("AION_CHECKPOINT_INTERVAL_MS={interval}").into_bytes());
        }
        let mut labels = spec.labels.clone();
        labels.insert(TASK.to_owned(), job.task.clone());
        labels.insert(
            ATTEMPT.to_owned(),
            place.attempt.map_or_else(String::new, |attempt| attempt.to_string()),
        );
        labels.insert(AGENT.to_owned(), place.agent.to_string());
        let record = AgentRecord {
            version: spec.version.clone(),
            created_ns: now_ns(),
            command: spec.argv.clone(),
            workspace: launch::workspace_word(spec),
            audit: launch::audit_word(spec),
            labels,
            ..AgentRecord::new(id.clone(), place.tenant.clone(), name)
        };
        Ok((record, plan))
    }
}

/// A file in memory that nobody can change any more: a process's standard input.
pub(crate) fn sealed(bytes: &[u8]) -> Outcome<OwnedFd> {
    let failed = |errno: rustix::io::Errno| Problem::internal("no memory for standard input", &errno);
    let fd = rustix::fs::memfd_create("params", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(failed)?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|error| Problem::internal("no memory for standard input", &error))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
    Ok(OwnedFd::from(file))
}
