//! Compiles the interface definitions, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/csi.proto", "proto/registration.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let definitions = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // The tests are kubelet. What the program does not use is not in it.
        .build_client(true)
        .build_transport(false)
        // Nothing that may hold a secret can be printed.
        .skip_debug([
            "csi.v1.CreateVolumeRequest",
            "csi.v1.DeleteVolumeRequest",
            "csi.v1.ValidateVolumeCapabilitiesRequest",
            "csi.v1.NodeStageVolumeRequest",
            "csi.v1.NodePublishVolumeRequest",
        ])
        .compile_fds(definitions)?;
    Ok(())
}
