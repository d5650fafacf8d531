//! Which pod a process is of, by the cgroups that it is in.
//!
//! Pure. The cgroups are kubelet's and the runtime's: no process of a pod without privilege moves to another's. Kubelet calls a pod's cgroup
//! `podUID` (the cgroupfs driver: `/kubepods/burstable/podUID/CONTAINER`), or `kubepods-burstable-podU_I_D.slice` (the systemd
//! driver, for which a dash is what a slash is elsewhere).

/// Whether a process whose /proc/PID/cgroup has this text is of the pod with this UID, and of no other.
pub fn is_of_pod(text: &str, uid: &str) -> bool {
    // `ID:CONTROLLERS:PATH`: one line with version 2, one for each hierarchy with version 1.
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut pods = paths.filter_map(pod_in).peekable();
    pods.peek().is_some() && pods.all(|pod| pod == uid || pod == uid.replace('-', "_"))
}

/// The UID of the outermost pod of a path, as it is written there: what is inside of a pod's cgroup may have any name.
fn pod_in(path: &str) -> Option<&str> {
    path.split('/').find_map(|name| match name.strip_suffix(".slice") {
        Some(slice) => {
            // A UID has no dash here.
            let (above, last) = slice.rsplit_once('-')?;
            last.strip_prefix("pod").filter(|_| is_kubelets(above))
        }
        None => name.strip_prefix("pod"),
    })
}

/// `kubepods`, `kubepods-burstable`, `kubepods-besteffort`; with `--cgroup-root` something is before it.
fn is_kubelets(above: &str) -> bool {
    above.split('-').any(|part| part == "kubepods")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1b2c3d4e-0000-4a5b-8c6d-7e8f90a1b2c3";
    const ANOTHER: &str = "1b2c3d4e-0000-4a5b-8c6d-7e8f90a1b2c4";

    #[test]
    fn as_kubelet_names_them() {
        let underscored = UID.replace('-', "_");
        for path in [
            format!("0::/kubepods/burstable/pod{UID}/0123abcd"),
            format!("0::/kubepods/pod{UID}"),
            format!("0::/../../../kubepods/besteffort/pod{UID}/x"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-01.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{underscored}.slice/crio-01.scope/nested"),
            format!(
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscored}.slice/cri-containerd-01.scope"
            ),
            format!(
                "12:pids:/kubepods/pod{UID}/0123\n3:cpu,cpuacct:/kubepods/pod{UID}/0123\n1:name=systemd:/kubepods/pod{UID}/0123\n0::/"
            ),
        ] {
            assert!(is_of_pod(&path, UID), "{path}");
            assert!(!is_of_pod(&path, ANOTHER), "{path}");
        }
        assert!(is_of_pod("0::/kubepods/pod0123456789abcdef/c", "0123456789abcdef"), "a static pod's has no dash");
    }

    #[test]
    fn names_of_ones_own_are_no_way_into_another_pod() {
        let underscored = UID.replace('-', "_");
        for text in [
            String::new(),
            "0::/".to_owned(),
            "0::/system.slice/kubelet.service".to_owned(),
            format!("0::/user.slice/x{UID}"),
            format!("0::/kubepods/pod{ANOTHER}/c/pod{UID}/d"),
            format!("0::/kubepods/burstable/pod{ANOTHER}/kubepods-pod{underscored}.slice"),
            format!("0::/user.slice/user-pod{underscored}.slice"),
            format!("2:cpu:/kubepods/pod{UID}/c\n1:name=x:/kubepods/pod{ANOTHER}/c"),
            format!("0::/kubepods/pod{UID}0/c"),
            format!("0::/kubepods/pod/c/{UID}"),
        ] {
            assert!(!is_of_pod(&text, UID), "{text}");
        }
    }
}
