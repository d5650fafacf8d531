//! Volumes that are made for claims: a directory for each, in a filesystem that a StorageClass names. Each call is a request for the
//! mounter, which has a helper serve the filesystem for that alone, and nothing is remembered: a volume's id says what it is.

use crate::class::{BadClass, ToMake};
use crate::csi::controller_server::Controller;
use crate::csi::controller_service_capability::rpc::Type as Can;
use crate::csi::controller_service_capability::{Rpc, Type};
use crate::csi::validate_volume_capabilities_response::Confirmed;
use crate::csi::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerServiceCapability,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest,
    GetCapacityResponse, ListVolumesRequest, ListVolumesResponse, ValidateVolumeCapabilitiesRequest,
    ValidateVolumeCapabilitiesResponse, Volume, VolumeCapability,
};
use crate::errors::status;
use crate::list::PersistentVolumes;
use crate::log::outcome;
use crate::mounter::Mounter;
use crate::places::{BadPath, Places};
use crate::volume::{BadVolume, Wanted, to_secrets};
use crate::volume_id::{OnDelete, VolumeId};
use api::directory::{Directory, Work, Worked};
use api::message::Call;
use api::options::MountOptions;
use api::request::{self, Switches};
use std::collections::HashMap;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub struct ControllerService {
    /// What helpers are known by.
    pub places: Places,
    /// Who does it.
    pub mounter: Mounter,
    /// What volumes are listed from, if the driver's account may.
    pub list: Option<PersistentVolumes>,
}

/// What the driver can do; and it lists volumes where it may ask for PersistentVolumes.
const CAPABILITIES: [Can; 3] = [Can::CreateDeleteVolume, Can::GetCapacity, Can::SingleNodeMultiWriter];

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        if request.name.is_empty() {
            return Err(BadPath::Missing("name").into());
        }
        if request.volume_content_source.is_some() {
            return Err(Status::invalid_argument("this driver cannot copy a volume or a snapshot"));
        }
        let capacity = request.capacity_range.unwrap_or_default();
        let (required, limit) = (capacity.required_bytes, capacity.limit_bytes);
        if required < 0 || limit < 0 || limit > 0 && limit < required {
            return Err(Status::out_of_range(
                "capacity_range is none: limit_bytes is less than required_bytes, or negative",
            ));
        }
        let ToMake { id, context, work } = ToMake::new(&request.name, &request.parameters)?;
        check_all(&request.volume_capabilities, &context)?;
        let volume_id = id.to_string();
        let done = self.work(&id, id.directory.clone(), work, request.secrets).await;
        outcome("made", &volume_id, &id.directory, done.map(|Worked { was_there, .. }| was_there))?;
        // A directory is as large as its filesystem.
        let volume = Volume { capacity_bytes: required, volume_id, volume_context: context };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let DeleteVolumeRequest { volume_id, secrets } = request.into_inner();
        if volume_id.is_empty() {
            return Err(BadPath::Missing("volume_id").into());
        }
        // What was never made is gone.
        let Some(id) = VolumeId::read(&volume_id) else {
            outcome("made by this driver, so nothing is deleted", &volume_id, "", Ok(false))?;
            return Ok(Response::new(DeleteVolumeResponse {}));
        };
        let (what, work) = match id.on_delete {
            OnDelete::Delete => ("deleted", Work::Remove),
            OnDelete::Archive => ("archived", Work::Rename { name: id.archive() }),
            OnDelete::Retain => {
                outcome("retained", &volume_id, &id.directory, Ok(false))?;
                return Ok(Response::new(DeleteVolumeResponse {}));
            }
        };
        let done = self.work(&id, id.directory.clone(), work, secrets).await;
        outcome(what, &volume_id, &id.directory, done.map(|Worked { was_there, .. }| !was_there))?;
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let ValidateVolumeCapabilitiesRequest { volume_id, volume_context, volume_capabilities, parameters, secrets } =
            request.into_inner();
        if volume_id.is_empty() {
            return Err(BadPath::Missing("volume_id").into());
        }
        if volume_capabilities.is_empty() {
            return Err(BadVolume::NoCapability.into());
        }
        let not_found = || Status::not_found("there is no such volume");
        let id = VolumeId::read(&volume_id).ok_or_else(not_found)?;
        if !self.work(&id, id.directory.clone(), Work::Find, secrets).await?.was_there {
            return Err(not_found());
        }
        let mut context = volume_context.clone();
        // Whoever asks need not know them.
        for (key, value) in [("type", &id.fstype), ("source", &id.source)] {
            context.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
        let answer = match check_all(&volume_capabilities, &context) {
            Ok(()) => {
                let confirmed = Some(Confirmed { volume_context, volume_capabilities, parameters });
                ValidateVolumeCapabilitiesResponse { confirmed, message: String::new() }
            }
            Err(error) => ValidateVolumeCapabilitiesResponse { confirmed: None, message: error.to_string() },
        };
        Ok(Response::new(answer))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let none = || Status::unimplemented("volumes are listed where --api-access has the word volumes");
        Ok(Response::new(self.list.as_ref().ok_or_else(none)?.list(request.into_inner()).await?))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let GetCapacityRequest { volume_capabilities, parameters } = request.into_inner();
        // Without a class there is nothing that a volume could be made in.
        if parameters.is_empty() {
            return Ok(Response::new(GetCapacityResponse { available_capacity: 0 }));
        }
        // Any name will do, and so will any claim's: a pattern may want one.
        let metadata = ["csi.storage.k8s.io/pvc/name", "csi.storage.k8s.io/pvc/namespace"];
        let named = parameters.into_iter().chain(metadata.map(|key| (key.to_owned(), "any".to_owned()))).collect();
        let ToMake { id, context, .. } = ToMake::new("any", &named)?;
        if !volume_capabilities.is_empty() && check_all(&volume_capabilities, &context).is_err() {
            return Ok(Response::new(GetCapacityResponse { available_capacity: 0 }));
        }
        let Worked { space, .. } = self.work(&id, String::new(), Work::Find, HashMap::new()).await?;
        let available = space.map_or(0, |space| space.available);
        let available_capacity = i64::try_from(available).unwrap_or(i64::MAX);
        Ok(Response::new(GetCapacityResponse { available_capacity }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capability = |can: Can| ControllerServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: can.into() })) };
        let capabilities = CAPABILITIES.into_iter().chain(self.list.as_ref().map(|_| Can::ListVolumes));
        Ok(Response::new(ControllerGetCapabilitiesResponse { capabilities: capabilities.map(capability).collect() }))
    }
}

impl ControllerService {
    /// Has the mounter do something in a volume's filesystem.
    async fn work(
        &self,
        id: &VolumeId,
        path: String,
        work: Work,
        secrets: HashMap<String, String>,
    ) -> Result<Worked, Status> {
        let VolumeId { fstype, source, options, .. } = id;
        let request = request::Request {
            fstype: fstype.clone(),
            source: source.clone(),
            target: self.places.of_work(&(fstype, source, &path)),
            options: MountOptions::parse(options).map_err(BadVolume::from)?,
            switches: Switches::default(),
            secrets: to_secrets(secrets),
        };
        let within = self.mounter.mount_timeout().as_secs();
        self.mounter.ask(&Call::Directory(Directory { request, path, work, within })).await.map_err(status)
    }
}

/// Whether a volume with these attributes can be used in all these ways.
fn check_all(capabilities: &[VolumeCapability], context: &HashMap<String, String>) -> Result<(), BadVolume> {
    if capabilities.is_empty() {
        return Err(BadVolume::NoCapability);
    }
    capabilities.iter().try_for_each(|capability| Wanted::new(Some(capability.clone()), context).map(drop))
}

impl From<BadClass> for Status {
    fn from(error: BadClass) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
