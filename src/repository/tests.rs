use std::fs;
use std::os::unix::fs::symlink;

use super::*;

const LIMITS: Limits = Limits { probe: Duration::from_secs(20), first_mount: Duration::from_secs(20) };

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn repository(&self, kind: Kind) -> Repository {
        Repository::new("test".into(), self.0.path().join("repository"), kind, Verify::IfKnown, LIMITS).unwrap()
    }

    fn publish(&self, n: u8) -> Digest {
        let layer = Digest::from_bytes([n; 32]);
        fs::create_dir_all(self.0.path().join("repository").join(layout::layerfs(layer))).unwrap();
        layer
    }
}

fn ask(repository: &Repository, layer: Digest) -> Result<Answer, Fault> {
    repository
        .ask(vec![Question { layer, records: true }], Instant::now() + LIMITS.probe)
        .map(|mut answers| answers.remove(0))
}

#[test]
fn a_directory_is_mounted_when_it_has_layers() {
    let scratch = Scratch::new();
    let repository = scratch.repository(Kind::Directory);
    assert_eq!(repository.state(), State::Unknown);
    assert!(matches!(repository.probe(), Err(Fault::NotMounted(_))));
    fs::create_dir(repository.path()).unwrap();
    assert!(matches!(repository.probe(), Err(Fault::NotMounted(_))), "an empty mountpoint");
    let layer = scratch.publish(1);
    assert_eq!(repository.probe(), Ok(()));
    assert_eq!(repository.state(), State::Healthy);
    assert!(matches!(ask(&repository, layer), Ok(Ok(Some(_)))));
    assert_eq!(ask(&repository, Digest::from_bytes([2; 32])), Ok(Ok(None)));
}

#[test]
fn a_plain_directory_is_no_cernvm_fs() {
    let scratch = Scratch::new();
    scratch.publish(1);
    let repository = scratch.repository(Kind::Cvmfs);
    assert!(matches!(repository.probe(), Err(Fault::NotMounted(_))));
}

#[test]
fn the_identity_changes_with_the_layer() {
    let scratch = Scratch::new();
    let layer = scratch.publish(1);
    let repository = scratch.repository(Kind::Directory);
    let identity = || ask(&repository, layer).unwrap().unwrap().unwrap().identity;
    let before = identity();
    assert_eq!(identity(), before);
    fs::create_dir(repository.layer_directory(layer).join("new")).unwrap();
    assert_ne!(identity(), before);
}

#[test]
fn a_layer_is_opened_through_no_link_and_must_be_a_directory() {
    let scratch = Scratch::new();
    let repository = scratch.repository(Kind::Directory);
    let outside = scratch.0.path().join("outside/layerfs");
    fs::create_dir_all(&outside).unwrap();
    let (linked, above, file) = (scratch.publish(1), scratch.publish(2), scratch.publish(3));
    let path = |layer| repository.layer_directory(layer);
    fs::remove_dir(path(linked)).unwrap();
    symlink(&outside, path(linked)).unwrap();
    fs::remove_dir_all(path(above).parent().unwrap()).unwrap();
    symlink(outside.parent().unwrap(), path(above).parent().unwrap()).unwrap();
    fs::remove_dir(path(file)).unwrap();
    fs::write(path(file), "").unwrap();
    for layer in [linked, above, file] {
        assert!(matches!(ask(&repository, layer), Ok(Err(Fault::Failed(..)))), "{:?}", ask(&repository, layer));
    }
}

#[test]
fn a_record_that_is_no_file_is_not_opened() {
    let scratch = Scratch::new();
    let layer = scratch.publish(1);
    let repository = scratch.repository(Kind::Directory);
    let metadata = repository.layer_directory(layer).with_file_name(".metadata");
    fs::create_dir(&metadata).unwrap();
    nix::unistd::mkfifo(&metadata.join("layers.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let present = ask(&repository, layer).unwrap().unwrap().unwrap();
    assert!(matches!(present.diff_id, Err(Fault::Failed(..))), "{present:?}");
}

#[test]
fn nothing_stays_open_between_requests() {
    let scratch = Scratch::new();
    let layer = scratch.publish(1);
    let repository = scratch.repository(Kind::Directory);
    ask(&repository, layer).unwrap().unwrap().unwrap();
    let inside = |link: &PathBuf| repository.contains(link);
    let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    assert_eq!(open.filter(inside).collect::<Vec<_>>(), Vec::<PathBuf>::new());
}
