//! A tool that does what it is told: `{"do": …}` on standard input. Compiled for both previews, by the tests.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).unwrap();
    let wanted = input.split("\"do\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("echo");
    match wanted {
        "echo" => print!("{input}"),
        "list" => print!("[1, 2, 3]"),
        "text" => print!("\"a \\\"text\\\"\""),
        "loop" => loop {
            black_box(0);
        },
        "allocate" => {
            let mut kept = Vec::new();
            loop {
                kept.push(black_box(vec![1u8; 1 << 20]));
            }
        }
        "take" => {
            let kept = black_box(vec![1u8; 24 << 20]);
            std::thread::sleep(Duration::from_millis(300));
            print!("{}", kept.len());
        }
        "recurse" => println!("{}", recurse(black_box(1))),
        "recurse-wide" => println!("{}", recurse_wide(black_box(1))),
        "flood" => loop {
            std::io::stdout().write_all(&[b'x'; 4096]).ok();
        },
        "flood-stderr" => {
            for n in 0..100_000 {
                eprintln!("line {n}");
            }
            std::process::exit(7);
        }
        "exit" => {
            eprintln!("it is broken");
            std::process::exit(3);
        }
        "exit-0" => {
            print!("{{\"done\":true}}");
            std::process::exit(0);
        }
        "panic" => panic!("no such luck"),
        "garbage" => print!("this is no JSON"),
        "nothing" => {}
        "many-values" => {
            let mut text = "[".to_owned();
            for _ in 0..400_000 {
                text.push_str("0,");
            }
            print!("{text}0]");
        }
        "deep" => print!("{}", "[".repeat(100_000)),
        "big" => print!("{{\"text\":\"{}\"}}", "y".repeat(3 << 20)),
        "read-on" => {
            // Standard input is at its end, however often it is read.
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok() {}
        }
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        "short-sleep" => {
            std::thread::sleep(Duration::from_millis(50));
            print!("true");
        }
        "network" => {
            let any = TcpStream::connect("127.0.0.1:1").is_ok()
                || TcpListener::bind("127.0.0.1:0").is_ok()
                || UdpSocket::bind("127.0.0.1:0").is_ok()
                || std::net::ToSocketAddrs::to_socket_addrs("localhost:1").is_ok();
            let refused = TcpListener::bind("127.0.0.1:0").err().map(|error| format!("{:?}", error.kind()));
            print!("{{\"any\":{any},\"refused\":{:?}}}", refused.unwrap_or_default());
        }
        "given" => {
            let args: Vec<String> = std::env::args().collect();
            let env: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
            let root = std::fs::read_dir("/").is_ok() || std::fs::read_dir(".").is_ok();
            let passwd = std::fs::read("/etc/passwd").is_ok() || std::fs::read("../etc/passwd").is_ok();
            print!("{{\"args\":{},\"env\":{env:?},\"files\":{}}}", args.len(), root || passwd);
        }
        "files" => {
            let read = std::fs::read_to_string("/data/word.txt").unwrap_or_default();
            let wrote = std::fs::write("/data/new.txt", "x").is_ok();
            let outside = std::fs::read("/data/../secret.txt").is_ok() || std::fs::read("/data/link").is_ok();
            let second = std::fs::write("/out/new.txt", "x").is_ok();
            print!("{{\"read\":{read:?},\"wrote\":{wrote},\"outside\":{outside},\"second\":{second}}}");
        }
        "relative" => {
            let read = std::fs::read_to_string("word.txt").unwrap_or_default();
            print!("{{\"read\":{read:?},\"passwd\":{}}}", std::fs::read("/etc/passwd").is_ok());
        }
        "handles" => {
            let mut kept = Vec::new();
            while let Ok(file) = std::fs::File::open("/data/word.txt") {
                kept.push(file);
            }
            print!("{}", kept.len());
        }
        "clocks" => {
            let begun = Instant::now();
            let mut seeds = std::collections::HashSet::new();
            for _ in 0..4 {
                seeds.insert(std::hash::BuildHasher::hash_one(
                    &std::collections::hash_map::RandomState::new(),
                    1,
                ));
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            print!("{{\"now\":{now},\"seeds\":{},\"ran\":{}}}", seeds.len(), begun.elapsed().as_secs());
        }
        // What an instance leaves behind, the next one must not find.
        "count" => {
            static COUNT: AtomicU32 = AtomicU32::new(1);
            print!("{}", COUNT.fetch_add(1, Ordering::Relaxed));
        }
        other => {
            eprintln!("nothing is called {other}");
            std::process::exit(1);
        }
    }
}

/// Fills the stack of WebAssembly.
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let below = recurse(n ^ (n << 7) ^ 0x9e37);
    below.rotate_left(5) ^ n
}

/// Fills the stack that the compiler keeps in linear memory.
#[inline(never)]
fn recurse_wide(n: u64) -> u64 {
    let room = black_box([n; 512]);
    recurse_wide(black_box(n + 1)) + room[(n % 512) as usize]
}
