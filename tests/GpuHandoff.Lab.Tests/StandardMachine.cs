namespace GpuHandoff.Lab.Tests;

/// <summary>One boot for many cases: one GPU with its audio function. A case leaves the machine as it found it.</summary>
public sealed class StandardMachine : IDisposable
{
    public const string Collection = "the standard machine";

    readonly Lazy<LabVm> vm = new(() =>
    {
        var vm = LabVm.Boot(new() { Name = "standard" });
        vm.Run("modprobe nvidia && modprobe vfio-pci").Ok();
        return vm;
    });

    /// <summary>The machine, with nvidia loaded and bound, and vfio-pci loaded.</summary>
    public LabVm Vm => vm.Value;

    public void Dispose()
    {
        if (vm.IsValueCreated)
            vm.Value.Dispose();
    }
}

[CollectionDefinition(StandardMachine.Collection)]
public sealed class StandardMachineUsers : ICollectionFixture<StandardMachine>;
