using GpuHandoff.Kernel;
using GpuHandoff.Machines;

namespace GpuHandoff.Simulation;

/// <summary>What open(2) of a character device does, by its numbers, and what its close gives back.</summary>
static class Opening
{
    public static Action Of(SimulatedKernel kernel, DeviceNode node) => node.Major switch
    {
        195 => Nvidia(kernel, node.Minor),
        226 => Drm(kernel, node.Minor),
        116 => Sound(kernel, node.Minor),
        89 => I2c(kernel, node.Minor),
        29 => Framebuffer(kernel, node.Minor),
        // drivers/input/evdev.c: an open file keeps nobody; evdev_disconnect hangs it up.
        13 => static () => { }
        ,
        _ when node.Major == kernel.UvmMajor && kernel.Modules.Find("nvidia_uvm") is { } uvm => Hold(uvm),
        _ => throw new Refusal(SimulatedKernel.NoSuchDevice),
    };

    /// <summary>kernel-open/nvidia/nv.c:nvidia_open; nv-chardev-numbers.h has the minors.</summary>
    static Action Nvidia(SimulatedKernel kernel, uint minor)
    {
        // fs/char_dev.c:base_probe asks for char-major-195, and whoever may open the node has nvidia loaded.
        if (kernel.Modules.Find("nvidia") is null)
            kernel.Modules.TryLoad("nvidia");
        if (kernel.Modules.Find("nvidia") is not { } nvidia)
            throw new Refusal(SimulatedKernel.NoSuchDevice);
        if (minor == 255)
            return Hold(nvidia);
        if (minor == 254)
            return Modeset(kernel);
        if (kernel.Nvidia.OfMinor(minor) is not { } gpu || gpu.Lost)
            throw new Refusal(Errno.NoDevice);
        if (gpu.Removing && kernel.Nvidia.RefusesOpensWhileRemoving)
            throw new Refusal(Errno.NoDevice);
        // nvidia/nv.c:nv_open_device, and rm_init_adapter for a first open.
        if (gpu.Draining)
            throw new Refusal(gpu.UsageCount > 0 || gpu.Persistent ? Errno.Busy : Errno.InputOutput);
        var release = Hold(nvidia);
        gpu.FileUsers++;
        return () =>
        {
            gpu.FileUsers--;
            release();
        };
    }

    /// <summary>NVKMS cannot end its clients: an open /dev/nvidia-modeset keeps every GPU in use.</summary>
    static Action Modeset(SimulatedKernel kernel)
    {
        if (kernel.Modules.Find("nvidia_modeset") is not { } modeset)
            throw new Refusal(SimulatedKernel.NoSuchDevice);
        var release = Hold(modeset);
        var gpus = kernel.Bus.Devices.Where(device => device.Driver == "nvidia").ToList();
        gpus.ForEach(static gpu => gpu.KernelUsers++);
        return () =>
        {
            gpus.ForEach(static gpu => gpu.KernelUsers--);
            release();
        };
    }

    static Action Drm(SimulatedKernel kernel, uint minor)
    {
        if (kernel.Drm.FindByMinor(minor) is not { } card || kernel.Modules.Find(card.Module) is not { } module)
            throw new Refusal(Errno.NoDevice);
        var release = Hold(module);
        card.Users++;
        return () =>
        {
            card.Users--;
            release();
        };
    }

    static Action Sound(SimulatedKernel kernel, uint minor)
    {
        if (kernel.Bus.Devices.FirstOrDefault(device => device.SoundCard == minor / 32) is not { } device
            || kernel.Modules.Find("snd_hda_intel") is not { } module)
            throw new Refusal(Errno.NoDevice);
        var release = Hold(module);
        device.SoundUsers++;
        return () =>
        {
            device.SoundUsers--;
            release();
        };
    }

    /// <summary>An adapter pins its owner (drivers/i2c/i2c-core-base.c:i2c_get_adapter).</summary>
    static Action I2c(SimulatedKernel kernel, uint minor)
    {
        if (kernel.Bus.Devices.FirstOrDefault(device => device.I2cAdapter == minor) is not { } device
            || kernel.Modules.Find(device.Driver == "nvidia" ? "nvidia" : "i2c_nvidia_gpu") is not { } module)
            throw new Refusal(Errno.NoDevice);
        var release = Hold(module);
        device.I2cUsers++;
        return () =>
        {
            device.I2cUsers--;
            release();
        };
    }

    static Action Framebuffer(SimulatedKernel kernel, uint minor)
    {
        if (kernel.Consoles.Framebuffers.FirstOrDefault(fb => fb.Index == minor) is not { } framebuffer)
            throw new Refusal(Errno.NoDevice);
        return framebuffer.Module is { } name && kernel.Modules.Find(name) is { } module ? Hold(module) : static () => { };
    }

    static Action Hold(LoadedModule module)
    {
        module.Files++;
        return () => module.Files--;
    }
}
