namespace GpuHandoff.Kernel;

/// <summary>An absolute path in the kernel's file systems (/sys, /proc, /dev), put together with <c>/</c>.</summary>
public readonly record struct SysPath(string Text)
{
    public static SysPath operator /(SysPath folder, string name) => new($"{folder.Text}/{name}");

    public static SysPath Combine(SysPath folder, string name) => folder / name;

    public override string ToString() => Text;
}
