//! What a killed or long-running server leaves in its folder and never looks at again.
//!
//! The folder holds one folder per bucket, and beside them, as hidden files: notes on objects
//! (`.bucket-{}.object-{}.{internal,metadata}.json`, names in base64), which the file system
//! backend does not remove with the object, and uploads (`.upload-{}.json`,
//! `.upload_id-{}.part-{}`), which nobody ends after a crash.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An upload that was not touched for a day is not going on any more. Not shorter: a client may
/// well continue after the server was started again.
const ABANDONED: Duration = Duration::from_hours(24);

/// Removes abandoned uploads and notes on objects that are gone.
///
/// # Errors
///
/// When the folder cannot be read or a file in it cannot be removed.
pub(super) fn clean(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_left_over = if name.starts_with(".upload") {
            entry
                .metadata()?
                .modified()?
                .elapsed()
                .is_ok_and(|age| age > ABANDONED)
        } else {
            noted_object(name).is_some_and(|object| !root.join(object).exists())
        };
        if is_left_over {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The path `bucket/key` of the object that a note with this name is about.
fn noted_object(name: &str) -> Option<String> {
    let (bucket, rest) = name.strip_prefix(".bucket-")?.split_once(".object-")?;
    // Notes on an upload that is not complete have another ending and go with their age.
    let key = rest
        .strip_suffix(".internal.json")
        .or_else(|| rest.strip_suffix(".metadata.json"))?;
    let decode = |text| String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    Some(format!("{}/{}", decode(bucket)?, decode(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_its_object() {
        let name = format!(
            ".bucket-{}.object-{}.internal.json",
            URL_SAFE_NO_PAD.encode("attune"),
            URL_SAFE_NO_PAD.encode("proj_1/files/file-1"),
        );
        assert_eq!(
            noted_object(&name).as_deref(),
            Some("attune/proj_1/files/file-1")
        );
        assert_eq!(noted_object(".tmp.0.internal.part"), None);
        assert_eq!(noted_object("attune"), None);
    }
}
