//! The native client of `scripts/bench`: what a filesystem costs when no interpreter stands before it.
//!
//! It reads requests from standard input, a JSON object a line, and answers each with one line. It lives
//! for the whole run, so that no measurement pays for a process's start.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What can be asked. Files are numbered; `first` is the number of the first one.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Request {
    /// Writes `count` files in place, without a temporary name.
    Fill(Files),
    /// Removes them.
    Remove(Files),
    /// Removes every file of a directory.
    Clear { dir: PathBuf },
    /// One operation on each file in turn: how long each took.
    Each {
        operation: Operation,
        #[serde(flatten)]
        files: Files,
    },
    /// The operation by `threads` threads for `milliseconds`, each on files of its own: how many in that time.
    /// Stores go on to new files, all else begins again after the last one.
    Rush {
        operation: Operation,
        threads: u64,
        milliseconds: u64,
        #[serde(flatten)]
        files: Files,
    },
}

#[derive(Deserialize)]
struct Files {
    dir: PathBuf,
    #[serde(default)]
    first: u64,
    count: u64,
    /// A file that holds what is in each; for a miss, none is needed.
    #[serde(default)]
    content: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Operation {
    /// Open, read, close.
    Hit,
    /// Stat a name that is not there.
    Miss,
    /// Create, write, close, rename.
    Store,
    /// The same with the file flushed before the rename, and the directory after it.
    FlushedStore,
}

#[derive(Default, Serialize)]
struct Answer {
    operations: u64,
    seconds: f64,
    /// Of each operation, when each was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nanoseconds: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(io::Error::from)
            .and_then(answer)
            .unwrap_or_else(|error| Answer {
                error: Some(error.to_string()),
                ..Answer::default()
            });
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(request: Request) -> io::Result<Answer> {
    let began = Instant::now();
    match request {
        Request::Fill(files) => {
            let content = files.content()?;
            for number in files.numbers() {
                fs::write(files.dir.join(name(number)), &content)?;
            }
            Ok(answer_of(files.count, began))
        }
        Request::Remove(files) => {
            for number in files.numbers() {
                fs::remove_file(files.dir.join(name(number)))?;
            }
            Ok(answer_of(files.count, began))
        }
        Request::Clear { dir } => {
            // Listed first: what readdir shows of a directory that shrinks is undefined.
            let files: Vec<_> = fs::read_dir(&dir)?.collect::<io::Result<_>>()?;
            for file in &files {
                fs::remove_file(file.path())?;
            }
            Ok(answer_of(files.len() as u64, began))
        }
        Request::Each { operation, files } => each(operation, &files),
        Request::Rush {
            operation,
            threads,
            milliseconds,
            files,
        } => rush(
            operation,
            &files,
            threads,
            Duration::from_millis(milliseconds),
        ),
    }
}

fn answer_of(operations: u64, began: Instant) -> Answer {
    Answer {
        operations,
        seconds: began.elapsed().as_secs_f64(),
        ..Answer::default()
    }
}

fn each(operation: Operation, files: &Files) -> io::Result<Answer> {
    let mut worker = Worker::new(operation, files)?;
    let mut nanoseconds = Vec::with_capacity(files.numbers().count());
    let began = Instant::now();
    for number in files.numbers() {
        let paths = Paths::new(&files.dir, number);
        let one = Instant::now();
        worker.run(&paths)?;
        nanoseconds.push(u64::try_from(one.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(Answer {
        nanoseconds,
        ..answer_of(files.count, began)
    })
}

fn rush(operation: Operation, files: &Files, threads: u64, time: Duration) -> io::Result<Answer> {
    let barrier = Barrier::new(usize::try_from(threads + 1).unwrap_or(usize::MAX));
    let done = AtomicU64::new(0);
    let run = |thread: u64, mut worker: Worker<'_>| -> io::Result<()> {
        // Made before the clock starts: a hit is to cost system calls, not string formatting.
        let paths: Vec<_> = match operation {
            Operation::Hit | Operation::Miss => files
                .numbers()
                .filter(|number| number % threads == thread)
                .map(|number| Paths::new(&files.dir, number))
                .collect(),
            Operation::Store | Operation::FlushedStore => Vec::new(),
        };
        let mut count = 0;
        barrier.wait();
        let began = Instant::now();
        while began.elapsed() < time {
            match paths.len() {
                0 => worker.run(&Paths::new(
                    &files.dir,
                    files.first + count * threads + thread,
                ))?,
                len => worker.run(&paths[usize::try_from(count).unwrap_or(0) % len])?,
            }
            count += 1;
        }
        done.fetch_add(count, Ordering::Relaxed);
        Ok(())
    };
    // Made before any thread is: one that is missing would let the others wait for ever.
    let workers: Vec<_> = (0..threads)
        .map(|_| Worker::new(operation, files))
        .collect::<io::Result<_>>()?;
    std::thread::scope(|scope| {
        let run = &run;
        let running: Vec<_> = (0..)
            .zip(workers)
            .map(|(thread, worker)| scope.spawn(move || run(thread, worker)))
            .collect();
        barrier.wait();
        let began = Instant::now();
        for thread in running {
            let outcome = thread.join();
            outcome.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
        }
        Ok(answer_of(done.load(Ordering::Relaxed), began))
    })
}

impl Files {
    fn numbers(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }

    fn content(&self) -> io::Result<Vec<u8>> {
        self.content.as_ref().map_or(Ok(Vec::new()), fs::read)
    }
}

/// A file's name as the engine would make it: each number is another template.
fn name(number: u64) -> String {
    format!("__kida_py314_kida0_12_0_ast2_e{number}.html_{number:016x}.pyc")
}

struct Paths {
    entry: PathBuf,
    temporary: PathBuf,
}

impl Paths {
    fn new(dir: &Path, number: u64) -> Self {
        let name = name(number);
        Self {
            temporary: dir.join(format!("{name}.{:08x}.tmp", number & 0xffff_ffff)),
            entry: dir.join(name),
        }
    }
}

/// One thread's buffers.
struct Worker<'a> {
    operation: Operation,
    dir: &'a Path,
    content: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(operation: Operation, files: &'a Files) -> io::Result<Self> {
        let content = files.content()?;
        Ok(Self {
            operation,
            dir: &files.dir,
            buffer: vec![0; content.len()],
            content,
        })
    }

    fn run(&mut self, paths: &Paths) -> io::Result<()> {
        match self.operation {
            // Less than the whole content is an error: a filesystem that returns nothing is fast.
            Operation::Hit => File::open(&paths.entry)?.read_exact(&mut self.buffer),
            Operation::Miss => match fs::metadata(&paths.entry) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Err(io::Error::other("what was to be missed is there")),
            },
            Operation::Store => {
                let mut file = File::create_new(&paths.temporary)?;
                file.write_all(&self.content)?;
                drop(file);
                fs::rename(&paths.temporary, &paths.entry)
            }
            Operation::FlushedStore => {
                let mut file = File::create_new(&paths.temporary)?;
                file.write_all(&self.content)?;
                file.sync_all()?;
                drop(file);
                fs::rename(&paths.temporary, &paths.entry)?;
                File::open(self.dir)?.sync_all()
            }
        }
    }
}
