//! `spec.entry`, and the parts of a manifest that belong to one kind of it.

use super::{Problems, check_path_inside, is_own};
use crate::error::quote;
use crate::raw::{self, TextOrList};

const FIELD: &str = "spec.entry";
const FIX: &str = "write exec:, rust:, wasm: or mcp: and what runs, as exec:bin/search, wasm:search.wasm or mcp:python3 server.py";
/// The least and the most that a module may be given: one page is 64 KiB, 32 bits address 4 GiB.
const MEMORY: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 30;

/// What runs when a tool is invoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEntry {
    /// A process for each call. The program is a path, a name to be looked for, or a file of the tool's own (relative, with '/').
    Exec(Vec<String>),
    /// A WebAssembly module or component among the tool's own files, relative; an instance for each call.
    Wasm(String),
    /// A server of the Model Context Protocol.
    Mcp(McpEntry),
}

/// How a server of the Model Context Protocol is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpEntry {
    /// A command that speaks over its standard input and output. The program is found as that of [`ToolEntry::Exec`].
    Stdio(Vec<String>),
    /// An address that speaks streamable HTTP.
    Http(String),
}

/// What each call of a WebAssembly tool may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WasmLimits {
    /// Units of computation, about one for each instruction; the runner's own when absent.
    pub fuel: Option<u64>,
    /// Bytes of memory; the runner's own when absent.
    pub max_memory: Option<u64>,
}

impl ToolEntry {
    /// The file of the tool's own that it names.
    pub(super) fn own_file(&self) -> Option<&str> {
        match self {
            Self::Exec(argv) | Self::Mcp(McpEntry::Stdio(argv)) => {
                argv.first().map(String::as_str).filter(|program| is_own(program))
            }
            Self::Wasm(path) => Some(path),
            Self::Mcp(McpEntry::Http(_)) => None,
        }
    }
}

impl Problems<'_> {
    pub(super) fn entry(&mut self, given: TextOrList) -> ToolEntry {
        let words = match given {
            TextOrList::List(words) => words,
            TextOrList::Text(text) => shell_words::split(&text).unwrap_or_else(|_| {
                self.wrong(FIELD, "a quote is not closed", "close it, or write the entry as a list");
                Vec::new()
            }),
        };
        let nothing = ToolEntry::Exec(Vec::new());
        let Some((first, rest)) = words.split_first() else {
            if self.is_empty() {
                self.wrong(FIELD, "it is empty", FIX);
            }
            return nothing;
        };
        let Some((kind @ ("exec" | "rust" | "wasm" | "mcp"), program)) = first.split_once(':') else {
            self.wrong(FIELD, format!("{} does not say what kind of tool it is", quote(first)), FIX);
            return nothing;
        };
        // `exec: python3 x.py` has the program in the second word.
        let mut argv: Vec<String> = Vec::with_capacity(words.len());
        if !program.is_empty() {
            argv.push(program.to_owned());
        }
        argv.extend_from_slice(rest);
        let bytes: usize = argv.iter().map(|a| a.len() + 1).sum();
        if bytes > 64 << 10 || argv.len() > 256 || argv.iter().any(|a| a.contains('\0')) {
            self.wrong(FIELD, "it is too long, or has a NUL character", FIX);
            return nothing;
        }
        let Some(program) = argv.first().filter(|program| !program.is_empty()) else {
            self.wrong(FIELD, "no program is named", FIX);
            return nothing;
        };
        match kind {
            "wasm" => self.wasm_entry(&argv),
            "mcp" if is_address(program) => self.http_entry(&argv),
            "mcp" => {
                self.program(program);
                ToolEntry::Mcp(McpEntry::Stdio(argv))
            }
            _ => {
                self.program(program);
                ToolEntry::Exec(argv)
            }
        }
    }

    fn program(&mut self, program: &str) {
        if is_own(program)
            && let Err(why) = check_path_inside(program)
        {
            let message = format!("{}: {why}", quote(program));
            self.wrong(FIELD, message, "name a file beside tool.yml");
        }
    }

    fn wasm_entry(&mut self, argv: &[String]) -> ToolEntry {
        let path = argv.first().map(String::as_str).unwrap_or_default();
        if argv.len() != 1 {
            self.wrong(FIELD, "a module takes no arguments", "write wasm: and its file alone");
        } else if let Err(why) = check_path_inside(path) {
            let message = format!("{}: {why}", quote(path));
            self.wrong(FIELD, message, "name a file beside tool.yml");
        }
        ToolEntry::Wasm(path.to_owned())
    }

    fn http_entry(&mut self, argv: &[String]) -> ToolEntry {
        let url = argv.first().map(String::as_str).unwrap_or_default();
        let authority = url.split_once("://").map(|(_, rest)| rest).unwrap_or_default();
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let clean = url.bytes().all(|b| b.is_ascii_graphic());
        if argv.len() != 1 {
            self.wrong(FIELD, "an address takes no arguments", "write mcp: and the address alone");
        } else if authority.is_empty() || authority.starts_with(':') || !clean || url.len() > 2048 {
            let message = format!("{} is not an address", quote(url));
            self.wrong(FIELD, message, "write it as mcp:https://host/path");
        } else if authority.contains('@') {
            self.wrong(FIELD, "an address has no user in it", "leave out what stands before '@'");
        } else if url.contains('#') {
            self.wrong(FIELD, "an address of a server has no fragment", "leave out '#' and what follows");
        }
        ToolEntry::Mcp(McpEntry::Http(url.to_owned()))
    }

    /// `spec.wasm`, which only a module has.
    pub(super) fn wasm(&mut self, entry: &ToolEntry, given: Option<raw::ToolWasm>) -> WasmLimits {
        let Some(raw::ToolWasm { fuel, max_memory }) = given else { return WasmLimits::default() };
        if !matches!(entry, ToolEntry::Wasm(_)) {
            self.wrong(
                "spec.wasm",
                "this tool is no WebAssembly module",
                "leave it out, or write entry: wasm:…",
            );
        }
        if fuel == Some(0) {
            self.wrong("spec.wasm.fuel", "no module runs without", "use at least 1");
        }
        let max_memory = max_memory.map(|bytes| bytes.0);
        if max_memory.is_some_and(|bytes| !MEMORY.contains(&bytes)) {
            self.wrong("spec.wasm.max_memory", "it is out of range", "use 64Ki to 4Gi");
        }
        WasmLimits { fuel, max_memory }
    }

    /// `spec.mcp`, which only a server has; the tool's name there.
    pub(super) fn mcp(&mut self, entry: &ToolEntry, name: &str, given: Option<raw::ToolMcp>) -> String {
        let Some(raw::ToolMcp { tool }) = given else { return name.to_owned() };
        if !matches!(entry, ToolEntry::Mcp(_)) {
            self.wrong("spec.mcp", "this tool is no MCP server", "leave it out, or write entry: mcp:…");
        }
        let tool = tool.unwrap_or_else(|| name.to_owned());
        if tool.is_empty() || tool.len() > 256 || tool.chars().any(char::is_control) {
            let message = format!("{} is not a tool's name", quote(&tool));
            self.wrong("spec.mcp.tool", message, "use 1 to 256 bytes without control characters");
        }
        tool
    }
}

fn is_address(program: &str) -> bool {
    let scheme = program.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn a_module_is_a_file_of_the_tool_s_own() {
        let tool = parse("  entry: wasm:count.wasm\n  files: [words.txt]\n").unwrap();
        assert_eq!(tool.entry, ToolEntry::Wasm("count.wasm".to_owned()));
        assert_eq!(tool.own_files(), ["count.wasm", "words.txt"]);
        assert_eq!(tool.wasm, WasmLimits::default());
        let tool =
            parse("  entry: \"wasm: bin/a.wasm\"\n  wasm: {fuel: 1000000, max_memory: 16Mi}\n").unwrap();
        assert_eq!(tool.entry, ToolEntry::Wasm("bin/a.wasm".to_owned()));
        assert_eq!(tool.wasm, WasmLimits { fuel: Some(1_000_000), max_memory: Some(16 << 20) });
    }

    #[test]
    fn servers_are_commands_or_addresses() {
        let stdio =
            |words: &[&str]| ToolEntry::Mcp(McpEntry::Stdio(words.iter().map(|w| (*w).to_owned()).collect()));
        let tool = parse(
            "  entry: mcp:python3 server.py --root /x\n  mcp: {tool: read_file}\n  files: [server.py]\n",
        )
        .unwrap();
        assert_eq!(tool.entry, stdio(&["python3", "server.py", "--root", "/x"]));
        assert_eq!((tool.mcp_tool.as_str(), tool.own_files()), ("read_file", vec!["server.py"]));
        let tool = parse("  entry: [\"mcp:\", bin/server]\n").unwrap();
        assert_eq!((tool.entry.clone(), tool.own_files()), (stdio(&["bin/server"]), vec!["bin/server"]));
        assert_eq!(tool.mcp_tool, "web_search");
        for url in ["http://127.0.0.1:8000/mcp", "https://tools.example/mcp?x=1"] {
            let tool = parse(&format!("  entry: mcp:{url}\n")).unwrap();
            assert_eq!(tool.entry, ToolEntry::Mcp(McpEntry::Http(url.to_owned())));
            assert_eq!(tool.own_files(), [""; 0]);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (spec, field) in [
            ("  entry: \"wasm:\"\n", FIELD),
            ("  entry: wasm:/usr/x.wasm\n", FIELD),
            ("  entry: wasm:../x.wasm\n", FIELD),
            ("  entry: wasm:x.wasm --flag\n", FIELD),
            ("  entry: [\"exec:\", \"\"]\n", FIELD),
            ("  entry: \"mcp:\"\n", FIELD),
            ("  entry: mcp:../server\n", FIELD),
            ("  entry: mcp:https://\n", FIELD),
            ("  entry: mcp:https://:80/\n", FIELD),
            ("  entry: mcp:https://user:key@host/\n", FIELD),
            ("  entry: mcp:https://host/#x\n", FIELD),
            ("  entry: mcp:http://host/ --flag\n", FIELD),
            ("  entry: [\"mcp:http://ho st/\"]\n", FIELD),
            ("  entry: exec:x\n  wasm: {fuel: 1}\n", "spec.wasm"),
            ("  entry: wasm:x\n  wasm: {fuel: 0}\n", "spec.wasm.fuel"),
            ("  entry: wasm:x\n  wasm: {max_memory: 5Gi}\n", "spec.wasm.max_memory"),
            ("  entry: wasm:x\n  wasm: {max_memory: 1Ki}\n", "spec.wasm.max_memory"),
            ("  entry: wasm:x\n  mcp: {tool: a}\n", "spec.mcp"),
            ("  entry: mcp:x\n  mcp: {tool: \"\"}\n", "spec.mcp.tool"),
        ] {
            let error = parse(spec).expect_err(spec);
            let problem = error.problems().first().unwrap();
            assert_eq!(problem.field, field, "{spec}: {problem}");
        }
    }
}
