using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Core.Tests.Simulation;

/// <summary>The sysfs protocol in short words, for sentences about the simulator.</summary>
static class Sysfs
{
    public const string Gpu = "0000:01:00.0";
    public const string Audio = "0000:01:00.1";
    public const string Second = "0000:02:00.0";

    static readonly TimeSpan Budget = TimeSpan.FromSeconds(5);

    public static PciAddress At(string address) => PciAddress.TryParse(address, out var parsed) ? parsed : default;

    public static void Write(this IKernel kernel, string path, string text) => kernel.Write(new(path), text, Budget);

    public static string? Read(this IKernel kernel, string path) => kernel.Read(new SysPath(path));

    public static IReadOnlyList<string> List(this IKernel kernel, string path) => kernel.List(new SysPath(path));

    public static string? Link(this IKernel kernel, string path) => kernel.Link(new SysPath(path));

    public static void Load(this IKernel kernel, string module, params string[] parameters) =>
        kernel.LoadModule(module, parameters, Budget);

    public static void Unload(this IKernel kernel, string module) => kernel.UnloadModule(module, Budget);

    public static void UnloadNvidia(this IKernel kernel)
    {
        foreach (var module in (string[])["nvidia_drm", "nvidia_uvm", "nvidia_modeset", "nvidia"])
            kernel.Unload(module);
    }

    public static void Override(this IKernel kernel, string device, string? driver) =>
        kernel.Write($"/sys/bus/pci/devices/{device}/driver_override", $"{driver}\n");

    public static void Bind(this IKernel kernel, string driver, string device) =>
        kernel.Write($"/sys/bus/pci/drivers/{driver}/bind", device);

    public static void Unbind(this IKernel kernel, string device) =>
        kernel.Write($"/sys/bus/pci/devices/{device}/driver/unbind", device);

    public static string? DriverOf(this IKernel kernel, string device) =>
        kernel.Link($"/sys/bus/pci/devices/{device}/driver")?.Split('/')[^1];

    /// <summary>The whole way of one card from its host drivers to vfio-pci.</summary>
    public static void HandOver(this IKernel kernel, params string[] devices)
    {
        kernel.Load("vfio-pci");
        foreach (var device in devices)
        {
            kernel.Override(device, "vfio-pci");
            if (kernel.DriverOf(device) is not null)
                kernel.Unbind(device);
            kernel.Bind("vfio-pci", device);
        }
    }

    public static int Refused(Action act) => Should.Throw<KernelRefused>(act).Errno;

    public static KernelSilent Silent(Action act) => Should.Throw<KernelSilent>(act);
}
