//! How much the journal may use.

/// Sizes and limits. The defaults suit a daemon that stays below 64 MB when idle.
#[derive(Debug, Clone)]
pub struct Options {
    /// Block cache, shared by all families.
    pub block_cache_bytes: usize,
    /// Writes in memory that are in the log but not yet in a table, all families together.
    pub write_buffer_bytes: usize,
    /// Log files may hold so much before tables are written, which bounds the replay at a start.
    pub max_wal_bytes: u64,
    /// A file of so many bytes is held on the disk and given up when nothing else is left, so that what was
    /// admitted can be brought to its end.
    pub reserve_bytes: u64,
    /// Free bytes, besides the reserve, below which new work is refused.
    pub admit_bytes: u64,
    /// Of the log so many bytes are kept for an archive after tables have what is in it; 0: nothing is. What is kept is given up before
    /// work is refused for want of room.
    pub keep_log_bytes: u64,
    /// The largest checkpoint.
    pub max_checkpoint_bytes: u64,
    /// zstd's level for checkpoints.
    pub checkpoint_level: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_cache_bytes: 4 << 20,
            write_buffer_bytes: 8 << 20,
            max_wal_bytes: 32 << 20,
            reserve_bytes: 48 << 20,
            admit_bytes: 32 << 20,
            keep_log_bytes: 0,
            max_checkpoint_bytes: 1 << 30,
            checkpoint_level: 1,
        }
    }
}
