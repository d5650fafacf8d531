//! A process in a pod that has files open, and uses them on command; and what it says of it.
//!
//! The pod's process is Python: a process of its own, as what it has open must be seen in /proc.

use super::Place;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use testbed::machine::{Process, Room};

/// Reads a line, does what it says, and prints a line: `ok …`, or the error.
const PROGRAM: &str = r#"
import os, sys, mmap, fcntl, random, hashlib
files, maps = {}, {}
def at(offset, size):
    "What the files of these tests hold: a number every eight bytes."
    first = offset // 8
    text = b''.join(b'%07d\n' % (n % 10000000) for n in range(first, first + size // 8 + 2))
    skip = offset - first * 8
    return text[skip:skip + size]
def run(words):
    name = words[1] if len(words) > 1 else ''
    if words[0] == 'open':
        flags = 0
        for flag in words[3].split('|'):
            flags |= getattr(os, flag)
        files[name] = os.open(words[2], flags, 0o644)
    elif words[0] == 'pread':
        fd, offset, size = files[name], int(words[2]), int(words[3])
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = os.pread(fd, size, offset)
        return 'as it should be' if data == at(offset, size)[:len(data)] and len(data) == size else 'WRONG %d bytes' % len(data)
    elif words[0] == 'content':
        fd = files[name]
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = os.pread(fd, 1 << 20, 0)
        return '%d bytes, %s' % (len(data), hashlib.sha256(data).hexdigest()[:16])
    elif words[0] == 'direct':
        fd, offset, size = files[name], int(words[2]), int(words[3])
        buffer = mmap.mmap(-1, size)
        length = os.preadv(fd, [buffer], offset)
        return 'as it should be' if buffer[:length] == at(offset, size)[:length] and length == size else 'WRONG %d bytes' % length
    elif words[0] == 'reads':
        fd, size, total = files[name], int(words[2]), os.fstat(files[name]).st_size
        for _ in range(int(words[3])):
            offset = random.randrange(0, total - size)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            if os.pread(fd, size, offset) != at(offset, size):
                return 'WRONG at %d' % offset
        return 'as it should be'
    elif words[0] == 'line':
        os.write(files[name], ('line %s\n' % words[2]).encode())
    elif words[0] == 'pwrite':
        os.pwrite(files[name], words[3].encode(), int(words[2]))
    elif words[0] == 'stat':
        stat = os.fstat(files[name])
        return '%d bytes' % stat.st_size
    elif words[0] == 'sync':
        os.fsync(files[name])
    elif words[0] == 'lock':
        fcntl.lockf(files[name], fcntl.LOCK_SH if words[2] == 'shared' else fcntl.LOCK_EX)
    elif words[0] == 'map':
        maps[name] = mmap.mmap(files[name], 0, mmap.MAP_SHARED, mmap.PROT_READ)
    elif words[0] == 'mapped':
        offset, size = int(words[2]), int(words[3])
        maps[name].madvise(mmap.MADV_DONTNEED)
        return 'as it should be' if maps[name][offset:offset + size] == at(offset, size) else 'WRONG'
    elif words[0] == 'close':
        os.close(files.pop(name))
    elif words[0] == 'unmap':
        maps.pop(name).close()
    elif words[0] == 'pid':
        return str(os.getpid())
    else:
        return 'unknown'
for line in sys.stdin:
    try:
        print('ok', run(line.split()) or '', flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"#;

/// The process.
#[derive(Debug)]
pub struct User {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl User {
    /// Starts it in a pod.
    pub fn start(pod: &Place) -> Self {
        let mut command = Room::command("/usr/bin/python3");
        command.args(["-u", "-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = pod.spawn(command);
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { _process: process, input, output }
    }

    /// Has it do something, and does not wait for its answer.
    pub fn begin(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The answer to what was begun.
    pub fn said(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Has it do something.
    pub fn does(&mut self, what: &str) -> String {
        self.begin(what);
        self.said()
    }

    /// The same; it must succeed. Returns what is behind `ok`.
    #[track_caller]
    pub fn ok(&mut self, what: &str) -> String {
        let said = self.does(what);
        let Some(rest) = said.strip_prefix("ok") else { panic!("{what}: {said}") };
        rest.trim().to_owned()
    }

    /// The same; what is read must be what the file holds.
    #[track_caller]
    pub fn reads(&mut self, what: &str) {
        assert_eq!(self.ok(what), "as it should be", "{what}");
    }
}

/// The lines of shell that make a file of so many MiB as [`User`] expects it.
pub fn file(path: &str, mebibytes: u64) -> String {
    format!("seq -f %07.0f 0 {} >{path}", mebibytes * (1 << 17) - 1)
}
