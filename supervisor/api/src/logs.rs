//! Logs: an agent's output as a stream.

use std::pin::Pin;
use std::sync::Arc;

use aion_api_proto::v1 as api;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::clock::from_timestamp;
use crate::core::Core;
use crate::output::{Begin, Chunk, Following};
use crate::principal::Principal;
use crate::problem::{Outcome, Problem};

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Chunks that wait for a slow client; the rest waits in the journal.
const AHEAD: usize = 4;

impl Core {
    pub(crate) fn logs(
        self: Arc<Self>,
        principal: &Principal,
        request: &api::LogsRequest,
    ) -> Outcome<Answers<api::LogChunk>> {
        let record = self.agents.find(principal.tenant(), &request.agent)?;
        let begin = begin(request)?;
        let since = request.since.as_ref().map_or(0, from_timestamp);
        let permit = self.stream_permit()?;
        let mut following = Following::new(Arc::clone(&self), &record, begin, since, request.follow);
        let (send, receive) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _permit = permit;
            let told = async {
                while let Some(chunks) = following.next().await? {
                    for chunk in chunks {
                        if send.send(Ok(message(chunk))).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                Ok::<_, Problem>(())
            };
            let end = tokio::select! {
                told = told => told.map_err(Status::from),
                () = send.closed() => return,
                () = self.shutdown.cancelled() => Err(Self::going_down()),
            };
            if let Err(status) = end {
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receive)))
    }
}

fn begin(request: &api::LogsRequest) -> Outcome<Begin> {
    match usize::try_from(request.tail_lines) {
        Err(_) => Err(Problem::field("tail_lines", "it is negative")),
        Ok(_) if i64::try_from(request.cursor).is_err() => {
            Err(Problem::field("cursor", "it is larger than any: give back a next_cursor"))
        }
        Ok(0) => Ok(Begin::Cursor(request.cursor)),
        Ok(_) if request.cursor != 0 => {
            Err(Problem::field("tail_lines", "it cannot be given together with a cursor"))
        }
        Ok(lines) => Ok(Begin::Lines(lines)),
    }
}

fn message(chunk: Chunk) -> api::LogChunk {
    let stream = if chunk.stderr { api::log_chunk::Stream::Stderr } else { api::log_chunk::Stream::Stdout };
    api::LogChunk {
        stream: stream.into(),
        data: chunk.data,
        time: crate::clock::timestamp(chunk.time_ns),
        next_cursor: chunk.next_cursor,
        lost_bytes: chunk.lost,
    }
}
