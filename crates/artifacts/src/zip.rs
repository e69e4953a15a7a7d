//! A zip archive as a stream: entries are stored as they are, so its length is known before a byte of them is read, and
//! no more than a chunk is in memory.
//!
//! Always in the 64-bit form, and with each entry's checksum behind it, since it is known only then (APPNOTE.TXT 4.3.9,
//! 4.5.3). Tensors do not compress.

use std::path::PathBuf;

use async_stream::try_stream;
use bytes::{BufMut as _, Bytes, BytesMut};
use crc32fast::Hasher;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio_util::io::ReaderStream;

use crate::{ArtifactError, ByteStream, ObjectStore};

const LOCAL_HEADER: u32 = 0x0403_4b50;
const DATA_DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const END: u32 = 0x0605_4b50;
/// The version that knows the 64-bit form.
const VERSION: u16 = 45;
/// Unix made it, so that modes are believed.
const MADE_BY: u16 = (3 << 8) | VERSION;
/// The checksum follows the data; the name is UTF-8.
const FLAGS: u16 = 1 << 3 | 1 << 11;
/// The first of January 1980: the same content is the same archive.
const DATE: u16 = 1 << 5 | 1;
const REGULAR_FILE: u32 = 0o100_644 << 16;
const EXTRA_64: u16 = 1;
/// What stands in for a number that is in the 64-bit form.
const ELSEWHERE_16: u16 = u16::MAX;
const ELSEWHERE_32: u32 = u32::MAX;

const LOCAL_BYTES: u64 = 30 + 20;
const DESCRIPTOR_BYTES: u64 = 24;
const CENTRAL_BYTES: u64 = 46 + 28;
const END_BYTES: u64 = 56 + 20 + 22;

/// A file of the archive.
#[derive(Debug, Clone)]
pub struct ZipEntry {
    /// Its path in the archive.
    pub name: String,
    /// Its length: exactly what its source gives.
    pub size_bytes: u64,
    /// Where its bytes are.
    pub source: ZipSource,
}

/// Where an entry's bytes are.
#[derive(Debug, Clone)]
pub enum ZipSource {
    /// Here.
    Bytes(Bytes),
    /// In an object.
    Object(ObjectStore, String),
    /// In a file of this machine.
    File(PathBuf),
}

/// The length of the archive.
pub fn zip_size_bytes(entries: &[ZipEntry]) -> u64 {
    let entries = entries.iter().map(|entry| {
        let names = 2 * entry.name.len() as u64;
        LOCAL_BYTES + entry.size_bytes + DESCRIPTOR_BYTES + CENTRAL_BYTES + names
    });
    entries.sum::<u64>() + END_BYTES
}

/// The archive. Its stream fails, and never ends early, when an entry cannot be read or has another length.
pub fn zip_stream(
    entries: Vec<ZipEntry>,
) -> impl Stream<Item = Result<Bytes, ArtifactError>> + Send {
    try_stream! {
        let mut written = Vec::with_capacity(entries.len());
        let mut offset = 0;
        for entry in entries {
            yield local_header(&entry.name);
            let (mut crc, mut size_bytes) = (Hasher::new(), 0);
            let mut body = entry.source.open().await?;
            while let Some(chunk) = body.try_next().await? {
                crc.update(&chunk);
                size_bytes += chunk.len() as u64;
                yield chunk;
            }
            if size_bytes != entry.size_bytes {
                Err(wrong_size(&entry, size_bytes))?;
            }
            let crc = crc.finalize();
            yield descriptor(crc, size_bytes);
            let n_bytes = LOCAL_BYTES + entry.name.len() as u64 + size_bytes + DESCRIPTOR_BYTES;
            written.push(Written { name: entry.name, crc, size_bytes, offset });
            offset += n_bytes;
        }
        yield directory(&written, offset);
    }
}

struct Written {
    name: String,
    crc: u32,
    size_bytes: u64,
    offset: u64,
}

impl ZipSource {
    /// All of it.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ArtifactError>> + Send {
        futures::stream::once(async move { self.open().await }).try_flatten()
    }

    async fn open(&self) -> Result<ByteStream, ArtifactError> {
        match self {
            Self::Bytes(bytes) => {
                let bytes = bytes.clone();
                Ok(futures::stream::once(async move { Ok(bytes) }).boxed())
            }
            Self::Object(objects, key) => Ok(objects.get_stream(key).await?.stream),
            Self::File(path) => {
                let failed = {
                    let path = path.clone();
                    move |source| ArtifactError::local("read", &path, source)
                };
                let file = tokio::fs::File::open(path).await.map_err(failed.clone())?;
                Ok(ReaderStream::with_capacity(file, 64 << 10)
                    .map_err(failed)
                    .boxed())
            }
        }
    }
}

fn wrong_size(entry: &ZipEntry, size_bytes: u64) -> ArtifactError {
    let message = format!(
        "`{}` has {size_bytes} bytes where {} were announced",
        entry.name, entry.size_bytes
    );
    ArtifactError::local(
        "pack",
        std::path::Path::new(&entry.name),
        std::io::Error::new(std::io::ErrorKind::InvalidData, message),
    )
}

fn short(len: usize) -> u16 {
    u16::try_from(len).expect("names and entries of an archive are few and short")
}

fn local_header(name: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(LOCAL_HEADER);
    out.put_u16_le(VERSION);
    out.put_u16_le(FLAGS);
    out.put_u16_le(0); // stored
    out.put_u16_le(0); // midnight
    out.put_u16_le(DATE);
    out.put_u32_le(0); // the checksum follows
    out.put_u32_le(ELSEWHERE_32);
    out.put_u32_le(ELSEWHERE_32);
    out.put_u16_le(short(name.len()));
    out.put_u16_le(20);
    out.put_slice(name.as_bytes());
    out.put_u16_le(EXTRA_64);
    out.put_u16_le(16);
    out.put_u64_le(0); // both sizes follow
    out.put_u64_le(0);
    out.freeze()
}

fn descriptor(crc: u32, size_bytes: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(DATA_DESCRIPTOR);
    out.put_u32_le(crc);
    out.put_u64_le(size_bytes);
    out.put_u64_le(size_bytes);
    out.freeze()
}

/// What stands at the end, at `start`: every entry again, and where this begins.
fn directory(entries: &[Written], start: u64) -> Bytes {
    let mut out = BytesMut::new();
    for entry in entries {
        central_header(&mut out, entry);
    }
    let size_bytes = out.len() as u64;
    let n_entries = entries.len() as u64;
    out.put_u32_le(END_64);
    out.put_u64_le(44); // what is left of this record
    out.put_u16_le(MADE_BY);
    out.put_u16_le(VERSION);
    out.put_u32_le(0);
    out.put_u32_le(0);
    out.put_u64_le(n_entries);
    out.put_u64_le(n_entries);
    out.put_u64_le(size_bytes);
    out.put_u64_le(start);
    out.put_u32_le(END_64_LOCATOR);
    out.put_u32_le(0);
    out.put_u64_le(start + size_bytes);
    out.put_u32_le(1);
    out.put_u32_le(END);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(ELSEWHERE_16);
    out.put_u16_le(ELSEWHERE_16);
    out.put_u32_le(ELSEWHERE_32);
    out.put_u32_le(ELSEWHERE_32);
    out.put_u16_le(0);
    out.freeze()
}

fn central_header(out: &mut BytesMut, entry: &Written) {
    out.put_u32_le(CENTRAL_HEADER);
    out.put_u16_le(MADE_BY);
    out.put_u16_le(VERSION);
    out.put_u16_le(FLAGS);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(DATE);
    out.put_u32_le(entry.crc);
    out.put_u32_le(ELSEWHERE_32);
    out.put_u32_le(ELSEWHERE_32);
    out.put_u16_le(short(entry.name.len()));
    out.put_u16_le(28);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u16_le(0);
    out.put_u32_le(REGULAR_FILE);
    out.put_u32_le(ELSEWHERE_32);
    out.put_slice(entry.name.as_bytes());
    out.put_u16_le(EXTRA_64);
    out.put_u16_le(24);
    out.put_u64_le(entry.size_bytes);
    out.put_u64_le(entry.size_bytes);
    out.put_u64_le(entry.offset);
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn entry(name: &str, bytes: &'static [u8], size_bytes: u64) -> ZipEntry {
        ZipEntry {
            name: name.to_owned(),
            size_bytes,
            source: ZipSource::Bytes(Bytes::from_static(bytes)),
        }
    }

    #[tokio::test]
    async fn an_archive_is_as_long_as_announced_and_whole_to_another_reader() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("on disk");
        std::fs::write(&file, vec![7; 200_000]).unwrap();
        let entries = vec![
            entry("a.txt", b"hello", 5),
            entry("empty", b"", 0),
            ZipEntry {
                name: "dir/é.bin".to_owned(),
                size_bytes: 200_000,
                source: ZipSource::File(file),
            },
        ];
        let size_bytes = zip_size_bytes(&entries);
        let chunks: Vec<Bytes> = zip_stream(entries).try_collect().await.unwrap();
        let archive = chunks.concat();
        assert_eq!(archive.len() as u64, size_bytes);

        let path = folder.path().join("archive.zip");
        std::fs::write(&path, archive).unwrap();
        let script = "import sys, zipfile\n\
                      with zipfile.ZipFile(sys.argv[1]) as z:\n\
                      \x20   assert z.testzip() is None\n\
                      \x20   print([(i.filename, i.file_size) for i in z.infolist()], z.read('a.txt'))";
        let read = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&read.stdout).trim(),
            "[('a.txt', 5), ('empty', 0), ('dir/é.bin', 200000)] b'hello'",
            "{}",
            String::from_utf8_lossy(&read.stderr)
        );
    }

    #[tokio::test]
    async fn an_entry_of_another_length_breaks_the_stream() {
        for announced in [4, 6] {
            let stream = zip_stream(vec![entry("a", b"hello", announced)]);
            let read: Result<Vec<Bytes>, _> = stream.try_collect().await;
            assert!(read.is_err(), "{announced}");
        }
    }
}
