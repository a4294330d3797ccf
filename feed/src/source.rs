//! One recorded file, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::csv::{Columns, Row};
use crate::{DataError, Fault, Tick, binance};

/// The longest line that is read, in bytes: recorders put whole books into one.
pub const MAX_LINE: usize = 16 << 20;

const BUFFER: usize = 256 << 10;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As [`binance`] says.
    Binance,
    /// As [`crate::csv`] says.
    Csv,
}

/// What a file does not tell itself.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// The instrument of CSV rows that name none.
    pub symbol: Option<String>,
}

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A trade or a quote.
    Tick(Tick<'a>),
    /// A change of the book behind its best levels, which is passed over.
    Depth,
    /// A message that has no tick, which is passed over.
    Other,
    /// Nothing: the file is at its end.
    End,
}

/// One recorded file; gzip is told by its first bytes and read directly.
pub struct Source {
    file: Arc<Path>,
    len: u64,
    read: Arc<AtomicU64>,
    lines: Lines,
    parser: Parser,
    ended: bool,
}

enum Parser {
    Binance,
    Csv {
        columns: Columns,
        row: Box<Row>,
        symbol: Option<String>,
    },
}

impl Source {
    /// Opens `file`.
    ///
    /// # Errors
    /// [`DataError`] when it cannot be read, or is CSV whose header does not say what the columns
    /// are.
    pub fn open(file: &Path, format: Format, options: &SourceOptions) -> Result<Self, DataError> {
        let opened = File::open(file).and_then(|opened| Ok((opened.metadata()?.len(), opened)));
        let (len, opened) = opened.map_err(|error| DataError::whole(file, error))?;
        let mut source = Self::new(file.to_owned(), opened, format, options)?;
        source.len = len;
        Ok(source)
    }

    /// Reads from `reader`; `file` is what errors call it.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn new(
        file: PathBuf,
        reader: impl Read + Send + 'static,
        format: Format,
        options: &SourceOptions,
    ) -> Result<Self, DataError> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            reader,
            read: Arc::clone(&read),
        };
        let reader = unpacked(counted).map_err(|error| DataError::whole(&file, error))?;
        let mut lines = Lines::new(reader);
        let parser = match format {
            Format::Binance => Ok(Parser::Binance),
            Format::Csv => csv_parser(&mut lines, options),
        };
        let file: Arc<Path> = file.into();
        Ok(Self {
            parser: parser.map_err(|fault| DataError {
                file: Arc::clone(&file),
                line: lines.number,
                fault,
            })?,
            file,
            len: 0,
            read,
            lines,
            ended: false,
        })
    }

    /// Bytes of the file, as it lies on the disk; 0 if that is not known.
    pub const fn len_bytes(&self) -> u64 {
        self.len
    }

    /// Bytes of the file that have been read so far, as they lie on the disk.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Reads the next line. Blank lines are passed over.
    ///
    /// # Errors
    /// [`DataError`] with file and line. The next call goes on behind that line, unless the error
    /// [ends the file](DataError::ends_the_file).
    pub fn step(&mut self) -> Result<Step<'_>, DataError> {
        if self.ended {
            return Ok(Step::End);
        }
        let line = match self.lines.next() {
            Ok(Some(line)) => Ok(line),
            Ok(None) => {
                self.ended = true;
                return Ok(Step::End);
            }
            Err(fault) => Err(fault),
        };
        let parser = &mut self.parser;
        line.and_then(|(number, line)| match parser.step(line) {
            Ok(step) => Ok(step),
            Err(fault) => Err((number, fault)),
        })
        .map_err(|(line, fault)| {
            let error = DataError {
                file: Arc::clone(&self.file),
                line,
                fault,
            };
            self.ended = error.ends_the_file();
            error
        })
    }
}

impl Parser {
    fn step<'a>(&'a mut self, line: &'a str) -> Result<Step<'a>, Fault> {
        match self {
            Self::Binance => Ok(match binance::parse(line)? {
                binance::Parsed::Tick(tick) => Step::Tick(tick),
                binance::Parsed::Depth => Step::Depth,
                binance::Parsed::Other => Step::Other,
            }),
            Self::Csv {
                columns,
                row,
                symbol,
            } => {
                row.read(line);
                columns.tick(row, symbol.as_deref()).map(Step::Tick)
            }
        }
    }
}

fn csv_parser(lines: &mut Lines, options: &SourceOptions) -> Result<Parser, Fault> {
    let header = lines.next().map_err(|(_, fault)| fault)?;
    let mut row = Row::default();
    // Some programs put a byte order mark before the header.
    row.read(header.map_or("", |(_, line)| line.trim_start_matches('\u{feff}')));
    let columns = Columns::of_header(&row)?;
    if !columns.have_symbol() && options.symbol.is_none() {
        return Err(Fault::NoSymbol);
    }
    Ok(Parser::Csv {
        columns,
        row: Box::new(row),
        symbol: options.symbol.clone(),
    })
}

/// The lines of a text, one at a time.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Of the line that was read last, from 1.
    number: u64,
}

impl Lines {
    fn new(reader: Box<dyn BufRead + Send>) -> Self {
        let (line, number) = (Vec::new(), 0);
        Self {
            reader,
            line,
            number,
        }
    }

    /// The next line that is not blank, with its number, or with the number of the line that
    /// cannot be read.
    fn next(&mut self) -> Result<Option<(u64, &str)>, (u64, Fault)> {
        loop {
            self.line.clear();
            self.number += 1;
            match self.read_line() {
                Ok(false) => return Ok(None),
                Ok(true) if self.line.trim_ascii().is_empty() => {}
                Ok(true) => break,
                Err(fault) => return Err((self.number, fault)),
            }
        }
        match std::str::from_utf8(&self.line) {
            Ok(line) => Ok(Some((self.number, line.trim_end_matches(['\n', '\r'])))),
            Err(_) => Err((self.number, Fault::NotText)),
        }
    }

    fn read_line(&mut self) -> Result<bool, Fault> {
        let mut limited = (&mut self.reader).take(MAX_LINE as u64);
        let len = limited.read_until(b'\n', &mut self.line)?;
        if len == MAX_LINE && !self.line.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Err(Fault::LineTooLong { limit: MAX_LINE });
        }
        Ok(len > 0)
    }
}

/// Counts the bytes that are read through it.
struct Counted<R> {
    reader: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.reader.read(buffer)?;
        self.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

fn unpacked(reader: impl Read + Send + 'static) -> std::io::Result<Box<dyn BufRead + Send>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    if reader.fill_buf()?.starts_with(GZIP) {
        let unpacking = MultiGzDecoder::new(reader);
        return Ok(Box::new(BufReader::with_capacity(BUFFER, unpacking)));
    }
    Ok(Box::new(reader))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LINES: &str = concat!(
        r#"5 {"data":{"e":"trade","s":"A","T":1,"p":"1.5","q":"2","m":true}}"#,
        "\n",
        r#"6 {"data":{"e":"depthUpdate","s":"A","b":[],"a":[]}}"#,
        "\r\n",
        "not a line\n",
        r#"7 {"data":{"e":"trade","s":"A","T":2,"p":"0.0000001","q":"2","m":true}}"#,
        "\n",
        r#"8 {"data":{"e":"bookTicker","s":"A","T":3,"b":"1","B":"1","a":"2","A":"1"}}"#,
    );

    fn source(bytes: Vec<u8>, format: Format) -> Result<Source, DataError> {
        let options = SourceOptions {
            symbol: Some("X".to_owned()),
        };
        Source::new(
            "ticks".into(),
            std::io::Cursor::new(bytes),
            format,
            &options,
        )
    }

    fn steps(mut source: Source) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match source.step() {
                Ok(Step::End) => return seen,
                Ok(Step::Tick(tick)) => {
                    seen.push(format!("{} {:?}", tick.symbol, tick.content.kind()))
                }
                Ok(other) => seen.push(format!("{other:?}")),
                Err(error) => seen.push(error.to_string()),
            }
        }
    }

    #[test]
    fn faults_are_reported_by_file_and_line_and_reading_goes_on_behind_them() {
        let seen = steps(source(LINES.into(), Format::Binance).unwrap());
        assert_eq!(seen[0], "A Trade");
        assert_eq!(seen[1], "Depth");
        assert!(seen[2].starts_with("ticks:3: "), "{}", seen[2]);
        assert_eq!(
            seen[3],
            "ticks:4: field `p`: \"0.0000001\" is more than 6 decimals"
        );
        assert_eq!(seen[4], "A Quote");
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn gzip_is_read_directly_even_in_several_members() {
        let packed: Vec<u8> = LINES
            .split_inclusive('\n')
            .flat_map(|line| {
                let mut packer =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(line.as_bytes()).unwrap();
                packer.finish().unwrap()
            })
            .collect();
        let plain = steps(source(LINES.into(), Format::Binance).unwrap());
        let len = packed.len() as u64;
        let mut packed = source(packed, Format::Binance).unwrap();
        while !matches!(packed.step(), Ok(Step::End)) {}
        assert_eq!(packed.read_bytes(), len);
        assert_eq!(plain.len(), 5);
    }

    #[test]
    fn a_torn_gzip_file_is_an_error_that_ends_it() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(LINES.as_bytes()).unwrap();
        let mut packed = packer.finish().unwrap();
        packed.truncate(packed.len() - 10);
        let mut source = source(packed, Format::Binance).unwrap();
        let error = loop {
            match source.step() {
                Err(error) if error.ends_the_file() => break error,
                Ok(Step::End) => panic!("the end was not missed"),
                _ => {}
            }
        };
        assert!(matches!(error.fault, Fault::Read(_)));
        assert!(matches!(source.step(), Ok(Step::End)));
    }

    #[test]
    fn csv_rows_are_counted_as_lines_of_the_file() {
        let text = "ts,bid,ask\n1,1,2\n\n2,1\n3,x,2\n4,1,2\n";
        let seen = steps(source(text.into(), Format::Csv).unwrap());
        assert_eq!((seen[0].as_str(), seen[3].as_str()), ("X Quote", "X Quote"));
        assert!(seen[1].starts_with("ticks:4: "), "{}", seen[1]);
        assert_eq!(
            seen[2],
            "ticks:5: field `bid`: \"x\" is not a decimal number"
        );
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn csv_without_a_symbol_or_with_another_header_is_refused_at_once() {
        let anonymous = std::io::Cursor::new("ts,bid,ask\n");
        let refused = Source::new(
            "f".into(),
            anonymous,
            Format::Csv,
            &SourceOptions::default(),
        );
        assert!(matches!(refused.err().unwrap().fault, Fault::NoSymbol));
        let refused = source("a,b\n".into(), Format::Csv).err().unwrap();
        assert!(
            refused.to_string().starts_with("f:1: ")
                || refused.to_string().starts_with("ticks:1: ")
        );
        assert!(matches!(refused.fault, Fault::Header(..)));
    }

    #[test]
    fn a_line_without_end_is_refused_and_the_next_one_is_read() {
        let mut bytes = vec![b'x'; MAX_LINE + 5];
        bytes.extend_from_slice(b"\n");
        bytes.extend_from_slice(LINES.as_bytes());
        let seen = steps(source(bytes, Format::Binance).unwrap());
        assert_eq!(seen[0], "ticks:1: line is longer than 16777216 bytes");
        assert_eq!((seen[1].as_str(), seen.len()), ("A Trade", 6));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let refused = Source::open(
            Path::new("/nowhere"),
            Format::Csv,
            &SourceOptions::default(),
        );
        assert!(refused.err().unwrap().to_string().starts_with("/nowhere"));
    }
}
