using GpuHandoff.Machines;

namespace GpuHandoff.Kernel;

/// <summary>Where the kernel keeps what we read and write.</summary>
public static class Sys
{
    public static SysPath Pci { get; } = new("/sys/bus/pci");
    public static SysPath PciDevices { get; } = Pci / "devices";
    public static SysPath PciDrivers { get; } = Pci / "drivers";
    public static SysPath Modules { get; } = new("/sys/module");
    public static SysPath Dev { get; } = new("/dev");
    public static SysPath Proc { get; } = new("/proc");

    public static SysPath Platform { get; } = new("/sys/bus/platform");
    public static SysPath VtConsoles { get; } = new("/sys/class/vtconsole");
    public static SysPath Graphics { get; } = new("/sys/class/graphics");

    public static SysPath Function(PciAddress function) => PciDevices / function.ToString();

    /// <summary>A bus by its number, for a rescan of what is on it: it stays when its last function has gone.</summary>
    public static SysPath Bus(PciAddress function) => new($"/sys/class/pci_bus/{function.Domain:x4}:{function.Bus:x2}");

    public static SysPath Driver(string driver) => PciDrivers / driver;

    public static SysPath Module(string module) => Modules / module;
}
