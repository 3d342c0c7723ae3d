//! Stable codes, one for each failure that a user can meet. Each has a page in `docs/errors/`.

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, exit $exit:literal;)*) => {
        /// A stable error code: the `reason` of the ErrorInfo in an API error.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $variant,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code's text, also the name of its page.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text),* }
            }

            /// The exit status with which `aionctl` (other than `run`) ends on it.
            #[must_use]
            pub const fn exit_status(self) -> u8 {
                match self { $(ErrorCode::$variant => $exit),* }
            }

            /// Reads a code back.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(ErrorCode::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// The manifest is not valid; the message names file, line, column and field.
    ManifestInvalid = "MANIFEST_INVALID", exit 2;
    /// A field of a request is not valid; `field` names it.
    InvalidField = "INVALID_FIELD", exit 2;
    /// A size, count or depth over its limit.
    TooLarge = "TOO_LARGE", exit 2;
    /// No agent of this id or name.
    AgentNotFound = "AGENT_NOT_FOUND", exit 4;
    /// The name belongs to another agent.
    NameTaken = "NAME_TAKEN", exit 1;
    /// The agent does not run.
    AgentNotRunning = "AGENT_NOT_RUNNING", exit 3;
    /// The agent runs already.
    AgentRunning = "AGENT_RUNNING", exit 1;
    /// The agent is frozen, and this cannot be done to a frozen agent.
    AgentPaused = "AGENT_PAUSED", exit 3;
    /// A layer of isolation could not be set up; the agent was not started.
    LayerFailed = "LAYER_FAILED", exit 1;
    /// A layer that the manifest asks for is not in this kernel.
    LayerUnavailable = "LAYER_UNAVAILABLE", exit 1;
    /// The program does not exist in the agent's file system.
    CommandNotFound = "COMMAND_NOT_FOUND", exit 1;
    /// The program exists and cannot be executed.
    CommandNotExecutable = "COMMAND_NOT_EXECUTABLE", exit 1;
    /// No seccomp, cgroup or agent profile of this name.
    ProfileNotFound = "PROFILE_NOT_FOUND", exit 2;
    /// The file of a profile or a global policy is not valid; the message names the file and the place.
    ProfileInvalid = "PROFILE_INVALID", exit 1;
    /// There is no secret of this name.
    SecretNotFound = "SECRET_NOT_FOUND", exit 1;
    /// The workspace or root folder cannot be used.
    WorkspaceInvalid = "WORKSPACE_INVALID", exit 1;
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED", exit 5;
    /// Policy denies it; the rule is named.
    PolicyDenied = "POLICY_DENIED", exit 5;
    /// What must be signed is not, or by nobody who is trusted.
    SignatureInvalid = "SIGNATURE_INVALID", exit 5;
    /// aiond cannot reach aion-launcher.
    LauncherUnavailable = "LAUNCHER_UNAVAILABLE", exit 6;
    /// aionctl cannot reach aiond.
    DaemonUnavailable = "DAEMON_UNAVAILABLE", exit 6;
    /// The disk that holds the state is full; nothing was changed.
    DiskFull = "DISK_FULL", exit 1;
    /// Too many agents, streams or requests.
    ResourceExhausted = "RESOURCE_EXHAUSTED", exit 1;
    /// The same request id came with another request.
    RequestIdReused = "REQUEST_ID_REUSED", exit 2;
    /// The cursor is older than what is kept.
    CursorExpired = "CURSOR_EXPIRED", exit 1;
    /// The audit log does not verify.
    AuditBroken = "AUDIT_BROKEN", exit 1;
    /// The wait ended before the agent did.
    WaitTimeout = "WAIT_TIMEOUT", exit 1;
    /// No task of this id.
    TaskNotFound = "TASK_NOT_FOUND", exit 4;
    /// The task id belongs to another task.
    TaskExists = "TASK_EXISTS", exit 1;
    /// The task has ended already.
    TaskEnded = "TASK_ENDED", exit 3;
    /// No agent serves tasks as this one asks.
    NotServed = "NOT_SERVED", exit 1;
    /// A message about an attempt that another one has replaced, or that is over.
    AttemptStale = "ATTEMPT_STALE", exit 1;
    /// The task cannot be done by its deadline.
    DeadlineUnmeetable = "DEADLINE_UNMEETABLE", exit 1;
    /// A task that this one is to wait for does not exist.
    DependencyNotFound = "DEPENDENCY_NOT_FOUND", exit 4;
    /// A task that this one is to wait for has ended badly.
    DependencyFailed = "DEPENDENCY_FAILED", exit 1;
    /// The task would wait for itself.
    DependencyCycle = "DEPENDENCY_CYCLE", exit 2;
    /// A quota leaves no room for it, now or ever.
    QuotaExceeded = "QUOTA_EXCEEDED", exit 1;
    /// A checkpoint does not have the length or the checksum that it should have.
    CheckpointCorrupt = "CHECKPOINT_CORRUPT", exit 1;
    /// The journal of the tasks does not read as it was written.
    JournalBroken = "JOURNAL_BROKEN", exit 1;
    /// A backup is not as it was written, or holds what no backup has.
    BackupBroken = "BACKUP_BROKEN", exit 1;
    /// A newer version of AION wrote the backup.
    BackupNewer = "BACKUP_NEWER", exit 1;
    /// The backup is encrypted, and not for what was given.
    BackupLocked = "BACKUP_LOCKED", exit 5;
    /// The folder that a state is to be restored into is not empty, or a daemon runs on it.
    StateNotEmpty = "STATE_NOT_EMPTY", exit 1;
    /// No signature, or one that does not fit.
    Unauthenticated = "UNAUTHENTICATED", exit 5;
    /// No tenant of this name.
    TenantNotFound = "TENANT_NOT_FOUND", exit 4;
    /// The tenant's name belongs to a tenant already.
    TenantExists = "TENANT_EXISTS", exit 1;
    /// The kernel has no such system call.
    SyscallUnknown = "SYSCALL_UNKNOWN", exit 2;
    /// No tool of this name.
    ToolNotFound = "TOOL_NOT_FOUND", exit 4;
    /// The tool ended badly, or its answer is not what it promises.
    ToolFailed = "TOOL_FAILED", exit 1;
    /// No model of this name.
    ModelNotFound = "MODEL_NOT_FOUND", exit 4;
    /// The model's backend failed.
    ModelFailed = "MODEL_FAILED", exit 1;
    /// The host that was asked cannot be reached, or does not answer as it should.
    FetchFailed = "FETCH_FAILED", exit 1;
    /// No memory under this key.
    KeyNotFound = "KEY_NOT_FOUND", exit 4;
    /// A budget has nothing left for it.
    BudgetExceeded = "BUDGET_EXCEEDED", exit 1;
    /// It took longer than it may.
    DeadlineExceeded = "DEADLINE_EXCEEDED", exit 1;
    /// No decision of this audit id.
    DecisionNotFound = "DECISION_NOT_FOUND", exit 4;
    /// No call of this name waits for a person.
    ApprovalNotFound = "APPROVAL_NOT_FOUND", exit 4;
    /// The agent has no such file.
    FileNotFound = "FILE_NOT_FOUND", exit 4;
    /// The agent has a file of this name already.
    FileExists = "FILE_EXISTS", exit 1;
    /// What is there cannot be used as a file by the agent.
    FileRefused = "FILE_REFUSED", exit 1;
    /// The two sides do not speak the same protocol version.
    ProtocolMismatch = "PROTOCOL_MISMATCH", exit 1;
    /// A defect in AION.
    Internal = "INTERNAL", exit 1;
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_have_a_page() {
        let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::parse(code.as_str()), Some(code));
            let page = pages.join(format!("{code}.md"));
            assert!(page.is_file(), "no page for {code}: {}", page.display());
        }
    }
}
