namespace GpuHandoff.Machines;

/// <summary>Who made a function and what it is: <c>10de:2684</c>. Two identical cards share it; only addresses tell them apart.</summary>
public readonly record struct PciId(int Vendor, int Device)
{
    public const int Nvidia = 0x10de;

    public override string ToString() => $"{Vendor:x4}:{Device:x4}";
}
