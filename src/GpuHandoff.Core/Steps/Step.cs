using System.Text.Json.Serialization;
using GpuHandoff.Goals;
using GpuHandoff.Kernel;

namespace GpuHandoff.Steps;

/// <summary>
/// One change with both ends stated. It is convergent: it reaches its end from its beginning and from anywhere in
/// between, so its undo is the same change with the ends swapped, whatever had been done of it.
/// </summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "step")]
[JsonDerivedType(typeof(Rebind), "rebind")]
[JsonDerivedType(typeof(LetKernelPick), "let-kernel-pick")]
[JsonDerivedType(typeof(LoadModule), "load-module")]
[JsonDerivedType(typeof(UnloadModule), "unload-module")]
[JsonDerivedType(typeof(LoadDriver), "load-driver")]
[JsonDerivedType(typeof(UnloadDriver), "unload-driver")]
[JsonDerivedType(typeof(AwaitIdle), "await-idle")]
[JsonDerivedType(typeof(RemoveNodes), "remove-nodes")]
[JsonDerivedType(typeof(MakeNodes), "make-nodes")]
[JsonDerivedType(typeof(HoldPower), "hold-power")]
[JsonDerivedType(typeof(ResizeBar), "resize-bar")]
[JsonDerivedType(typeof(StopUnit), "stop-unit")]
[JsonDerivedType(typeof(StartUnit), "start-unit")]
[JsonDerivedType(typeof(StopContainer), "stop-container")]
[JsonDerivedType(typeof(StartContainer), "start-container")]
[JsonDerivedType(typeof(StopProcess), "stop-process")]
[JsonDerivedType(typeof(SwitchPersistence), "switch-persistence")]
[JsonDerivedType(typeof(StopTarget), "stop-target")]
[JsonDerivedType(typeof(StartTarget), "start-target")]
[JsonDerivedType(typeof(StopMps), "stop-mps")]
[JsonDerivedType(typeof(StartMps), "start-mps")]
[JsonDerivedType(typeof(AwaitRelease), "await-release")]
[JsonDerivedType(typeof(Drain), "drain")]
[JsonDerivedType(typeof(DetachConsole), "detach-console")]
[JsonDerivedType(typeof(RestoreConsole), "restore-console")]
[JsonDerivedType(typeof(ReleaseFirmwareDisplay), "release-firmware-display")]
[JsonDerivedType(typeof(BindFirmwareDisplay), "bind-firmware-display")]
[JsonDerivedType(typeof(MakeFolder), "make-folder")]
[JsonDerivedType(typeof(RemoveFolder), "remove-folder")]
[JsonDerivedType(typeof(LinkProgram), "link-program")]
[JsonDerivedType(typeof(SetVm), "set-vm")]
public abstract record Step
{
    /// <summary>What it does, in one sentence without a full stop.</summary>
    public abstract string Say();

    /// <summary>The way back, null where there is none to go: <see cref="SayNoUndo"/> tells why.</summary>
    public abstract Step? Undo();

    public virtual string SayNoUndo() => "nothing to undo";

    /// <summary>What it does beyond its sentence where the machine resists; null: nothing.</summary>
    public virtual string? SayElse() => null;

    /// <summary>
    /// On the way forward its failure is told and undoes nothing: a service that does not start is no reason to take a GPU
    /// from the host again. Run itself says whether it worked; its end is not read back.
    /// </summary>
    public virtual bool MayFail() => false;

    public abstract Position Look(IKernel kernel);

    public abstract void Run(IKernel kernel, Limits limits);
}
