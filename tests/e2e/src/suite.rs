//! A small test runner with the output of Rust's own: the suite shares daemons between tests and has to look, after
//! the last of them, whether anything is left; Rust's runner has no place for either.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How a test ended that did not panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// What it says holds.
    Passed,
    /// It cannot run here, and why.
    Skipped(String),
}

impl From<()> for Verdict {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

struct Test<'a> {
    name: String,
    run: Box<dyn Fn() -> Verdict + Send + Sync + 'a>,
    /// Whether it is tried a second time.
    again: bool,
}

/// Failures that are tried a second time, at most; with more of them something is wrong.
const AGAIN: usize = 2;

/// Tests, in the order in which they begin.
pub struct Suite<'a> {
    tests: Vec<Test<'a>>,
    options: Options,
}

/// What the command line says; the flags are those of Rust's runner that scripts use.
#[derive(Debug, Clone, Default)]
pub struct Options {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    threads: Option<usize>,
}

impl Options {
    /// Reads the command line.
    #[must_use]
    pub fn read(args: impl IntoIterator<Item = String>) -> Self {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let (flag, mut value) = match arg.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
                _ => (arg, None),
            };
            match flag.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--skip" => options.skip.extend(value.or_else(|| args.next())),
                "--test-threads" => {
                    options.threads = value.or_else(|| args.next()).and_then(|text| text.parse().ok());
                }
                // They have a value that is no filter.
                "--format" | "--color" | "--logfile" | "-Z" => drop(value.take().or_else(|| args.next())),
                flag if flag.starts_with('-') => {}
                _ => options.filters.push(flag),
            }
        }
        options
    }

    /// Whether only the names are wanted.
    #[must_use]
    pub const fn lists(&self) -> bool {
        self.list
    }

    fn wants(&self, name: &str) -> bool {
        let hit = |part: &String| if self.exact { name == part } else { name.contains(part.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

/// What became of the tests.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    skipped: usize,
    failed: Vec<(String, String)>,
    /// Those that held the second time, and what was wrong the first.
    unsteady: Vec<(String, String)>,
    times: Vec<(Duration, String)>,
}

impl<'a> Suite<'a> {
    /// An empty one.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { tests: Vec::new(), options: options.clone() }
    }

    /// Adds a test, when the command line wants it.
    pub fn test<V: Into<Verdict>>(&mut self, name: &str, run: impl Fn() -> V + Send + Sync + 'a) {
        if self.options.wants(name) {
            self.tests.push(Test {
                name: name.to_owned(),
                run: Box::new(move || run().into()),
                again: false,
            });
        }
    }

    /// Lets the tests that `may` be tried once more when they fail, after all others and with nothing beside them: what waits for
    /// another program on a machine that is busy may fail for that alone. The report names those that held only then. It is not for
    /// tests of what may never happen, not even once.
    #[must_use]
    pub fn tried_again(mut self, may: impl Fn(&str) -> bool) -> Self {
        for test in &mut self.tests {
            test.again = may(&test.name);
        }
        self
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty()
    }

    /// Runs them, at most `threads` at once unless the command line says otherwise.
    pub fn run(self, threads: usize, report: &mut Report) {
        if self.options.list {
            for test in self.tests {
                say(&format!("{}: test", test.name));
            }
            return;
        }
        let threads = self.options.threads.unwrap_or(threads).clamp(1, 64);
        let queue: Mutex<VecDeque<Test<'a>>> = Mutex::new(self.tests.into());
        let shared = Mutex::new(report);
        let again = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(test) = take(&queue) {
                        one(test, &shared, &again);
                    }
                });
            }
        });
        for Failed { test, why } in again.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            once_more(&test, why, &shared);
        }
    }
}

fn take<'a>(queue: &Mutex<VecDeque<Test<'a>>>) -> Option<Test<'a>> {
    queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
}

/// A test that waits for its second try.
struct Failed<'a> {
    test: Test<'a>,
    why: String,
}

/// How a test ended; the words of its panic when it failed.
fn run(test: &Test<'_>) -> Result<Verdict, String> {
    // A thread of its name, so that the panic's message says which test it was.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(test.name.clone());
        match thread.spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(&test.run))) {
            Ok(handle) => handle.join().unwrap_or_else(Err).map_err(|panic| words(panic.as_ref())),
            Err(error) => Err(error.to_string()),
        }
    })
}

fn one<'a>(test: Test<'a>, report: &Mutex<&mut Report>, again: &Mutex<Vec<Failed<'a>>>) {
    let begun = Instant::now();
    let result = run(&test);
    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut again = again.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match result {
        Err(why) if test.again && again.len() < AGAIN => {
            say(&format!("{} failed, and is tried once more at the end", test.name));
            again.push(Failed { test, why });
        }
        result => report.add(test.name, begun.elapsed(), result),
    }
}

fn once_more(test: &Test<'_>, first: String, report: &Mutex<&mut Report>) {
    let begun = Instant::now();
    let result = run(test);
    let mut report = report.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match result {
        Err(second) => {
            let both = format!("{second}\n-- and the first time --\n{first}");
            report.add(test.name.clone(), begun.elapsed(), Err(both));
        }
        held => {
            report.unsteady.push((test.name.clone(), first));
            report.add(test.name.clone(), begun.elapsed(), held);
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

impl Report {
    fn add(&mut self, name: String, took: Duration, result: Result<Verdict, String>) {
        match result {
            Ok(Verdict::Passed) => {
                self.passed += 1;
                say(&format!("test {name} ... ok"));
                self.times.push((took, name));
            }
            Ok(Verdict::Skipped(why)) => {
                self.skipped += 1;
                say(&format!("test {name} ... ignored, {why}"));
            }
            Err(why) => {
                say(&format!("test {name} ... FAILED"));
                self.failed.push((name, why));
            }
        }
    }

    /// Adds what is no test of its own, as what is left behind after the last one.
    pub fn check(&mut self, name: &str, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                say(&format!("test {name} ... ok"));
            }
            Err(why) => {
                say(&format!("test {name} ... FAILED"));
                self.failed.push((name.to_owned(), why));
            }
        }
    }

    /// Counts tests that none of could run.
    pub fn skip_all(&mut self, suite: Suite<'_>, why: &str) {
        for test in suite.tests {
            self.skipped += 1;
            say(&format!("test {} ... ignored, {why}", test.name));
        }
    }

    /// Prints the closing lines.
    #[must_use]
    pub fn close(mut self, begun: Instant) -> ExitCode {
        self.times.sort_by(|a, b| b.cmp(a));
        let slow = self.times.iter().take(5).filter(|(took, _)| *took >= Duration::from_secs(2));
        let slow: Vec<String> = slow.map(|(took, name)| format!("{name} {}", seconds(*took))).collect();
        if !slow.is_empty() {
            say(&format!("\nslowest: {}", slow.join(", ")));
        }
        if !self.unsteady.is_empty() {
            say("\nunsteady, held the second time only:");
            for (name, why) in &self.unsteady {
                say(&format!("\n---- {name} ----\n{why}"));
            }
        }
        if !self.failed.is_empty() {
            say("\nfailures:");
            for (name, why) in &self.failed {
                say(&format!("\n---- {name} ----\n{why}"));
            }
        }
        let word = if self.failed.is_empty() { "ok" } else { "FAILED" };
        say(&format!(
            "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {}\n",
            self.passed,
            self.failed.len(),
            self.skipped,
            seconds(begun.elapsed())
        ));
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
    }
}

#[expect(clippy::print_stdout, reason = "a test runner's output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        Options::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_flags_of_rusts_runner_are_understood() {
        let read = options("--test-threads=2 --nocapture --skip slow exits --format pretty");
        assert_eq!(read.threads, Some(2));
        assert!(read.wants("exits::codes") && !read.wants("exits::slow") && !read.wants("pretty"));
        assert!(!options("--exact exits").wants("exits::codes"));
        assert!(options("").wants("anything"));
    }

    #[test]
    fn a_panic_is_a_failure_and_the_others_go_on() {
        let mut suite = Suite::new(&options(""));
        suite.test("good", || ());
        suite.test("bad", || {
            assert_eq!(1, 2, "on purpose");
        });
        suite.test("elsewhere", || Verdict::Skipped("no moon".to_owned()));
        let mut report = Report::default();
        suite.run(2, &mut report);
        assert_eq!((report.passed, report.skipped, report.failed.len()), (1, 1, 1));
        assert!(report.failed[0].1.contains("on purpose"));
    }
    fn fails(why: &str) {
        panic!("{why}");
    }

    #[test]
    fn a_second_try_is_for_those_that_may_have_one_and_for_few() {
        let tries = std::sync::atomic::AtomicUsize::new(0);
        let at_first = || tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let mut suite = Suite::new(&options(""));
        suite.test("waits::a", || assert!(at_first(), "slow"));
        suite.test("waits::b", || fails("always"));
        suite.test("waits::c", || fails("one too many"));
        suite.test("never::d", || fails("not even once"));
        let mut report = Report::default();
        suite.tried_again(|name| name.starts_with("waits::")).run(1, &mut report);
        let failed: Vec<&str> = report.failed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(failed, ["waits::c", "never::d", "waits::b"]);
        assert_eq!(report.unsteady, [("waits::a".to_owned(), "slow".to_owned())]);
        assert_eq!(report.passed, 1);
        assert!(report.failed[2].1.contains("the first time"));
    }
}
