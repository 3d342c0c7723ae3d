//! Bodies: bounded in bytes and in time, alone and all together.
//!
//! A signature is over the whole body, so that anybody can begin one. A large body takes one of a few places and keeps it for as
//! long as it comes on: at a floor that slow lines have while nobody waits for a place, faster as soon as somebody does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aion_syscall::{MAX_BODY, Reason, Refusal};
use aion_types::ErrorCode;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Frame};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

/// Up to here a body needs no place, and has so long to come.
const SMALL: usize = 64 << 10;
const SMALL_TIME: Duration = Duration::from_secs(30);
/// Bodies that have come to be larger and are under way at once: each can be of [`MAX_BODY`].
const LARGE_AT_ONCE: usize = 8;
/// A place for a large body is waited for so long.
const PLACE_TIME: Duration = Duration::from_secs(10);
/// Who has a place sends at this rate, in bytes a millisecond. It may be behind by so much, and silent no longer.
const FLOOR: usize = 32;
const BEHIND: Duration = Duration::from_secs(3);
/// Strangers, when somebody waits for their place. Others could not send, were places kept for as long as the floor allows.
const HURRY: usize = 1024;
const HURRY_BEHIND: Duration = Duration::from_secs(1);
/// Those who are known keep theirs for so long then.
const KNOWN_TIME: Duration = Duration::from_secs(30);
/// How soon somebody who waits is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// Who sends a body, as far as that is known before it is read: those who have shown who they are have places of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Known,
    Stranger,
}

impl Sender {
    pub(crate) fn of(connection_is_known: bool) -> Self {
        if connection_is_known { Self::Known } else { Self::Stranger }
    }

    fn places(self) -> &'static Places {
        static KNOWN: Places = Places::new();
        static STRANGERS: Places = Places::new();
        match self {
            Self::Known => &KNOWN,
            Self::Stranger => &STRANGERS,
        }
    }
}

struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

/// A count that is one higher for as long as this lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn in_this(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Places {
    const fn new() -> Self {
        Self { free: Semaphore::const_new(LARGE_AT_ONCE), waiting: AtomicUsize::new(0) }
    }

    async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.free.try_acquire() {
            return Some(place);
        }
        let _waits = Counted::in_this(&self.waiting);
        timeout(PLACE_TIME, self.free.acquire()).await.ok()?.ok()
    }

    fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Large bodies of one connection that have a place.
#[derive(Debug, Default)]
pub(crate) struct Large(AtomicUsize);

impl Large {
    /// Whether there is one.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    sender: Sender,
    /// When it got its place.
    since: Instant,
}

impl Pace {
    /// Until when something more must come, when so many bytes are there and it is waited for from `now` on.
    fn due(self, now: Instant, bytes: usize, wanted: bool) -> Instant {
        let at = |rate: usize, behind: Duration| {
            let on_time = self.since + Duration::from_millis((bytes / rate) as u64);
            on_time.min(now) + behind
        };
        let floor = at(FLOOR, BEHIND);
        match self.sender {
            _ if !wanted => floor,
            Sender::Known => floor.min(self.since + KNOWN_TIME),
            Sender::Stranger => at(HURRY, HURRY_BEHIND),
        }
    }
}

/// Reads a body.
pub(crate) async fn read(body: Body, sender: Sender) -> Result<Bytes, Refusal> {
    read_up_to(body, MAX_BODY, sender, &Large::default()).await
}

/// As [`read`], up to so many bytes, of a connection with such bodies.
pub(crate) async fn read_up_to(
    body: Body,
    most: usize,
    sender: Sender,
    large: &Large,
) -> Result<Bytes, Refusal> {
    collect(body, most, sender, sender.places(), large).await
}

fn late(message: String) -> Refusal {
    Refusal::new(Reason::Invalid, ErrorCode::DeadlineExceeded, message).at("body")
}

async fn collect(
    body: Body,
    most: usize,
    sender: Sender,
    places: &Places,
    large: &Large,
) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body has more than {most} bytes");
        Refusal::new(Reason::TooLarge, ErrorCode::TooLarge, message).at("body")
    };
    // What says that it is too large need not come.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let mut body = Limited::new(body, most);
    let mut bytes = BytesMut::new();
    let mut place = None::<(SemaphorePermit<'_>, Counted<'_>, Pace)>;
    let small_due = Instant::now() + SMALL_TIME;
    loop {
        let next = match &place {
            None => timeout_at(small_due, body.frame())
                .await
                .map_err(|_| late(format!("the body did not come within {} s", SMALL_TIME.as_secs())))?,
            Some((_, _, pace)) => next(&mut body, *pace, bytes.len(), places).await?,
        };
        let Some(frame) = next else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => too_large(),
            false => Refusal::field("body", "it did not come to its end"),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        // Not before: who says much and sends nothing holds no place.
        if place.is_none() && bytes.len() + data.len() > SMALL {
            // Who waits for a place has a large one, too: its connection is kept.
            let counted = Counted::in_this(&large.0);
            let taken = places.take().await.ok_or_else(|| {
                let message = "too many large bodies are under way";
                Refusal::new(Reason::Exhausted, ErrorCode::ResourceExhausted, message).retry_after(1000)
            })?;
            place = Some((taken, counted, Pace { sender, since: Instant::now() }));
        }
        bytes.extend_from_slice(&data);
    }
}

type Next = Option<Result<Frame<Bytes>, Box<dyn std::error::Error + Send + Sync>>>;

/// What comes next of a body that has a place, unless it comes too slowly to keep it.
async fn next(body: &mut Limited<Body>, pace: Pace, bytes: usize, places: &Places) -> Result<Next, Refusal> {
    let begun = Instant::now();
    loop {
        let due = pace.due(begun, bytes, places.is_wanted());
        // Nothing is lost of a frame that was not waited for to its end.
        if let Ok(next) = timeout_at(due.min(Instant::now() + LOOK), body.frame()).await {
            return Ok(next);
        }
        if Instant::now() >= due {
            let message = match places.is_wanted() {
                true => "the body comes too slowly for others that wait for its place",
                false => "the body comes too slowly",
            };
            return Err(late(message.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};

    use super::*;

    fn large() -> Bytes {
        Bytes::from(vec![b'x'; 2 * SMALL])
    }

    /// A body that begins and then says nothing more.
    fn endless() -> Body {
        let begun = stream::iter([Ok::<_, std::io::Error>(large())]);
        Body::from_stream(begun.chain(stream::pending()))
    }

    /// So many strangers with bodies that do not end, as soon as each has its place.
    async fn strangers(places: &'static Places) -> Vec<tokio::task::JoinHandle<Result<Bytes, Refusal>>> {
        let strangers = (0..LARGE_AT_ONCE)
            .map(|_| {
                tokio::spawn(async move {
                    let large = Large::default();
                    collect(endless(), MAX_BODY, Sender::Stranger, places, &large).await
                })
            })
            .collect();
        while places.free.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        strangers
    }

    #[tokio::test]
    async fn strangers_with_large_bodies_hold_no_place_of_those_who_are_known() {
        static STRANGERS: Places = Places::new();
        let others = strangers(&STRANGERS).await;
        let known = read(Body::from(large()), Sender::Known).await.unwrap();
        assert_eq!(known.len(), large().len());
        assert_eq!(STRANGERS.free.available_permits(), 0, "they are still at it");
        assert!(!std::ptr::eq(Sender::Known.places(), Sender::Stranger.places()));
        others.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_stranger_that_is_slow_makes_room_for_one_that_waits() {
        static STRANGERS: Places = Places::new();
        let others = strangers(&STRANGERS).await;
        let own = Large::default();
        let read = collect(Body::from(large()), MAX_BODY, Sender::Stranger, &STRANGERS, &own).await;
        assert_eq!(read.unwrap().len(), large().len());
        assert!(!own.any() && !STRANGERS.is_wanted());
        for other in others {
            assert_eq!(other.await.unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded);
        }
    }

    #[test]
    fn who_comes_on_at_the_floor_keeps_a_place_that_nobody_wants() {
        let since = Instant::now();
        let at = |ms| since + Duration::from_millis(ms);
        for sender in [Sender::Known, Sender::Stranger] {
            let pace = Pace { sender, since };
            // Five MiB at the floor: more than two minutes.
            for second in 0..163 {
                let (now, bytes) = (at(second * 1000), usize::try_from(second).unwrap() * FLOOR * 1000);
                assert!(pace.due(now, bytes, false) >= now + BEHIND);
            }
            // Who trickles is behind at once, and who sent all at once may not be silent for longer.
            assert!(pace.due(at(10_000), 10_000, false) < at(10_000));
            assert_eq!(pace.due(at(1000), MAX_BODY, false), at(1000) + BEHIND);
        }
    }

    #[test]
    fn a_place_that_somebody_wants_is_for_the_fast() {
        let since = Instant::now();
        let (half_minute, floor) = (since + Duration::from_secs(31), 31_000 * FLOOR);
        for sender in [Sender::Known, Sender::Stranger] {
            let pace = Pace { sender, since };
            assert!(pace.due(half_minute, floor, false) > half_minute);
            assert!(pace.due(half_minute, floor, true) < half_minute, "{sender:?}");
        }
        let second = since + Duration::from_secs(1);
        let fast = Pace { sender: Sender::Stranger, since };
        assert!(fast.due(second, 1 << 20, true) > second);
        assert!(fast.due(second + HURRY_BEHIND, 1 << 19, true) < second + HURRY_BEHIND);
    }
}
