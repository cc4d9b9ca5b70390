//! What a directory of manifests does when its files change, break or vanish.

use super::*;

/// A directory of this test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-directory-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        // Written a while ago: nobody waits for more.
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - REREAD).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{clusterIP: {ip}, ports: \
         [{{port: 80}}]}}\n"
    )
}

fn reread(directory: Directory) -> (Directory, Arc<Cluster>) {
    let directory = directory.refreshed();
    let cluster = directory.cluster().borrow().clone();
    (directory, cluster)
}

#[test]
fn a_broken_file_is_reported_with_its_line_and_keeps_its_last_good_state() {
    let scratch = Scratch::new("broken");
    scratch.write("web.yaml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    scratch.write(
        "web.yaml",
        &service("web", "10.96.0.1").replace("port: 80", "port: x"),
    );
    let (_directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_some());
    let report = cluster.reports[0].to_string();
    assert!(
        report.contains("web.yaml:4: ") && report.contains("stays in force (1 objects)"),
        "{report}"
    );
}

#[test]
fn a_corrected_file_is_served_and_its_report_goes() {
    let scratch = Scratch::new("corrected");
    scratch.write("web.yaml", "{");
    let directory = Directory::open(&scratch.0).unwrap();
    scratch.write("web.yaml", &service("web", "10.96.0.1"));
    let (_directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_some() && cluster.reports.is_empty());
}

#[test]
fn a_deleted_file_takes_its_objects_with_it() {
    let scratch = Scratch::new("deleted");
    let web = scratch.write("deep/er/web.yml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    assert!(directory.cluster().borrow().service("demo", "web").is_some());
    fs::remove_file(web).unwrap();
    let (_directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_none());
}

#[test]
fn of_two_definitions_the_first_by_path_counts_and_both_are_named() {
    let scratch = Scratch::new("twice");
    scratch.write("b.yaml", &service("web", "10.96.0.2"));
    scratch.write("a.yaml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    let cluster = directory.cluster().borrow().clone();
    assert_eq!(cluster.services_at("10.96.0.1".parse().unwrap()).len(), 1);
    let report = cluster.reports[0].to_string();
    assert!(
        report.contains("b.yaml:1: Service demo/web") && report.contains("a.yaml:1"),
        "{report}"
    );
}

#[test]
fn a_single_file_may_have_any_name() {
    let scratch = Scratch::new("single");
    let file = scratch.write(
        "mesh.txt",
        &format!("{}---\n{}", service("a", "10.96.0.1"), service("b", "10.96.0.2")),
    );
    let cluster = Directory::open(&file).unwrap().cluster().borrow().clone();
    assert_eq!(cluster.sizes(), (2, 0, 0));
    assert!(Directory::open(&scratch.0.join("absent")).is_err());
}

#[test]
fn a_directory_that_vanishes_changes_nothing() {
    let scratch = Scratch::new("vanished");
    scratch.write("web.yaml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    fs::rename(&scratch.0, scratch.0.with_extension("away")).unwrap();
    let (directory, cluster) = reread(directory);
    fs::rename(scratch.0.with_extension("away"), &scratch.0).unwrap();
    assert!(cluster.service("demo", "web").is_some() && cluster.reports.len() == 1);
    assert!(reread(directory).1.reports.is_empty());
}

#[test]
fn a_circle_of_links_ends() {
    let scratch = Scratch::new("circle");
    scratch.write("web.yaml", &service("web", "10.96.0.1"));
    for link in ["a", "b", "c"] {
        std::os::unix::fs::symlink(".", scratch.0.join(link)).unwrap();
    }
    let cluster = Directory::open(&scratch.0).unwrap().cluster().borrow().clone();
    assert!(cluster.service("demo", "web").is_some() && cluster.reports.is_empty());
}

#[test]
fn a_file_that_can_not_be_opened_is_reported_until_it_can() {
    let scratch = Scratch::new("nowhere");
    let file = scratch.0.join("web.yaml");
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    let directory = Directory::open(&scratch.0).unwrap();
    assert!(
        directory.cluster().borrow().reports[0]
            .to_string()
            .contains("can't be read")
    );
    scratch.write("nowhere", &service("web", "10.96.0.1"));
    let (_directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_some() && cluster.reports.is_empty());
}

#[test]
fn half_a_file_is_not_believed() {
    let scratch = Scratch::new("half");
    let file = scratch.write("web.yaml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    fs::write(&file, "").unwrap();
    let (directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_some() && directory.files.unsettled);
    scratch.write("web.yaml", "");
    let (directory, cluster) = reread(directory);
    assert!(cluster.service("demo", "web").is_none() && !directory.files.unsettled);
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let scratch = Scratch::new("long");
    let long = "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1);
    scratch.write("web.yaml", &long);
    let directory = Directory::open(&scratch.0).unwrap();
    assert!(
        directory.cluster().borrow().reports[0]
            .reason
            .contains("split or remove some")
    );
}

#[tokio::test]
async fn a_change_reaches_a_reader() {
    let scratch = Scratch::new("watched");
    scratch.write("web.yaml", &service("web", "10.96.0.1"));
    let directory = Directory::open(&scratch.0).unwrap();
    let mut cluster = directory.cluster();
    let running = tokio::spawn(directory.run());
    scratch.write("new.yaml", &service("new", "10.96.0.2"));
    let seen = cluster
        .wait_for(|cluster| cluster.service("demo", "new").is_some())
        .await;
    assert!(seen.is_ok());
    running.abort();
}

#[tokio::test]
async fn a_mounted_config_map_is_swapped_by_its_link() {
    let scratch = Scratch::new("configmap");
    scratch.write("..v1/web.yaml", &service("web", "10.96.0.1"));
    scratch.write("..v2/web.yaml", &service("web", "10.96.0.9"));
    std::os::unix::fs::symlink("..v1", scratch.0.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/web.yaml", scratch.0.join("web.yaml")).unwrap();
    let directory = Directory::open(&scratch.0).unwrap();
    let mut cluster = directory.cluster();
    let running = tokio::spawn(directory.run());
    std::os::unix::fs::symlink("..v2", scratch.0.join("..data_tmp")).unwrap();
    fs::rename(scratch.0.join("..data_tmp"), scratch.0.join("..data")).unwrap();
    let moved = "10.96.0.9".parse().unwrap();
    assert!(
        cluster
            .wait_for(|cluster| !cluster.services_at(moved).is_empty())
            .await
            .is_ok()
    );
    running.abort();
}
